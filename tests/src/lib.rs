//! Helpers for the tests beside this file.

pub mod captures;
pub mod fuzz;
pub mod street;
pub mod world;
