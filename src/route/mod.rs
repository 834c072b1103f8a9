//! Whose request it is: hosts, paths, the table.
