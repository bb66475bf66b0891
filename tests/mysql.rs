//! What is particular to the MySQL store.
