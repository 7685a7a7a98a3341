//! Waking a worker that sleeps.

/// What a sleeping worker listens to besides its sockets.
#[derive(Debug, Default)]
pub struct Wake;
