"""`wherry`, the command for people: speaks CRI to any endpoint, and wherry.v1 where there is one."""
