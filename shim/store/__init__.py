"""What wherryd remembers: SQLite is the one truth, frozen values in memory are its view."""
