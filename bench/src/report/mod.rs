//! What people look at: where every report comes from.

mod origin;

pub use origin::Origin;
