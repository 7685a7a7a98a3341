//! What the XDP program and its loader share.
#![no_std]
