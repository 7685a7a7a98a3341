//! Events on their way to one tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use turnpike_dataplane::api::{CallRef, Event, FrameBytes};

/// Control frames, and packets for ourselves, that may wait for one tunnel; more are dropped (they are repeated).
const INBOX_FRAMES: usize = 128;

/// Events on their way to one tunnel. Frames are bounded; answers to commands always have room, since there is one
/// per command.
#[derive(Clone)]
pub struct Inbox {
    events: mpsc::UnboundedSender<Letter>,
    frames: Arc<AtomicUsize>,
}

/// The tunnel's end of an [`Inbox`].
pub struct Mail {
    events: mpsc::UnboundedReceiver<Letter>,
    frames: Arc<AtomicUsize>,
}

/// An event as it waits for its tunnel: as large as what it holds. Every tunnel has room for some of these, and an event
/// would hold the longest frame there is.
enum Letter {
    Frame(CallRef, Box<[u8]>),
    Inner(CallRef, Box<[u8]>),
    Other(Box<Event>),
}

impl Letter {
    fn new(event: Event) -> Self {
        match event {
            Event::Frame { call, frame } => Self::Frame(call, frame[..].into()),
            Event::Inner { call, packet } => Self::Inner(call, packet[..].into()),
            other => Self::Other(Box::new(other)),
        }
    }

    /// `None` never comes of an event.
    fn open(self) -> Option<Event> {
        Some(match self {
            Self::Frame(call, frame) => Event::Frame {
                call,
                frame: FrameBytes::new(&frame)?,
            },
            Self::Inner(call, packet) => Event::Inner {
                call,
                packet: FrameBytes::new(&packet)?,
            },
            Self::Other(event) => *event,
        })
    }
}

impl Inbox {
    /// A pair for one tunnel.
    pub fn new() -> (Self, Mail) {
        let (sender, receiver) = mpsc::unbounded_channel();
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
    /// The next event; `None` when every [`Inbox`] is gone.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await?.open();
        self.taken(event.as_ref());
        event
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = self.events.try_recv().ok()?.open();
        self.taken(event.as_ref());
        event
    }

    fn taken(&self, event: Option<&Event>) {
        if event.is_some_and(is_bounded) {
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
