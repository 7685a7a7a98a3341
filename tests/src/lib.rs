//! Helpers for the tests beside this file.

pub mod captures;
pub mod concentrator;
pub mod crowd;
pub mod fuzz;
pub mod peers;
pub mod street;
pub mod world;
