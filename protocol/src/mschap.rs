//! MS-CHAP.
