//! gre
