//! Events on their way to one tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use turnpike_dataplane::api::{CallRef, Event, FrameBytes};

use crate::post;

/// Control frames, and packets for ourselves, that may wait for one tunnel; more are dropped (they are repeated).
const INBOX_FRAMES: usize = 128;

/// Events on their way to one tunnel. Frames are bounded; answers to commands always have room, since there is one
/// per command.
#[derive(Clone)]
pub struct Inbox {
    events: post::Sender<Letter>,
    frames: Arc<AtomicUsize>,
}

/// The tunnel's end of an [`Inbox`].
pub struct Mail {
    events: post::Receiver<Letter>,
    frames: Arc<AtomicUsize>,
}

/// An event as it waits for its tunnel: as large as what it holds, where an event has room for the longest frame there
/// is.
pub struct Letter(Inside);

enum Inside {
    Frame(CallRef, Box<[u8]>),
    Inner(CallRef, Box<[u8]>),
    Other(Box<Event>),
}

impl Letter {
    fn new(event: Event) -> Self {
        Self(match event {
            Event::Frame { call, frame } => Inside::Frame(call, frame[..].into()),
            Event::Inner { call, packet } => Inside::Inner(call, packet[..].into()),
            other => Inside::Other(Box::new(other)),
        })
    }

    /// The event; `None` never comes of one.
    pub fn open(self) -> Option<Event> {
        Some(match self.0 {
            Inside::Frame(call, frame) => Event::Frame {
                call,
                frame: FrameBytes::new(&frame)?,
            },
            Inside::Inner(call, packet) => Event::Inner {
                call,
                packet: FrameBytes::new(&packet)?,
            },
            Inside::Other(event) => *event,
        })
    }

    /// Whether it comes as often as the client likes.
    fn is_bounded(&self) -> bool {
        match &self.0 {
            Inside::Frame(..) | Inside::Inner(..) => true,
            Inside::Other(event) => is_bounded(event),
        }
    }
}

impl Inbox {
    /// A pair for one tunnel.
    pub fn new() -> (Self, Mail) {
        let (sender, receiver) = post::channel();
        let frames = Arc::new(AtomicUsize::new(0));
        let mail = Mail {
            events: receiver,
            frames: frames.clone(),
        };
        (
            Self {
                events: sender,
                frames,
            },
            mail,
        )
    }

    /// False when a frame had to be dropped.
    pub(super) fn deliver(&self, event: Event) -> bool {
        if is_bounded(&event) {
            if self.frames.load(Ordering::Relaxed) >= INBOX_FRAMES {
                return false;
            }
            self.frames.fetch_add(1, Ordering::Relaxed);
        }
        // A tunnel that is gone has given its calls back: nobody waits for this.
        let _ = self.events.send(Letter::new(event));
        true
    }
}

impl Mail {
    /// The next event, still closed: who waits for it need not have room for the longest.
    pub async fn next(&mut self) -> Letter {
        let letter = self.events.recv().await;
        self.taken(&letter);
        letter
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Letter> {
        let letter = self.events.try_recv()?;
        self.taken(&letter);
        Some(letter)
    }

    fn taken(&self, letter: &Letter) {
        if letter.is_bounded() {
            self.frames.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether an event comes as often as the client likes.
fn is_bounded(event: &Event) -> bool {
    matches!(
        event,
        Event::Frame { .. } | Event::Inner { .. } | Event::Garbled { .. }
    )
}
