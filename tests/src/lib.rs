//! Helpers for the tests beside this file.
