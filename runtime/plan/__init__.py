"""Pure decisions: values in, values out, no system call."""
