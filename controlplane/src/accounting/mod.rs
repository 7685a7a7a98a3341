//! Accounting: who had which address, when, and how much went through it.
//!
//! Tunnels tell the [`Books`] when a session begins and ends; workers are asked for its counters in between. What that
//! comes to is an [`Entry`], which the [`Clerk`]'s thread writes to the [`Ledger`], one SQLite file that is two things: the
//! log of sessions that `turnpike history` reads, and the spool of records that wait to be delivered, which the [`Courier`] does. A session is one
//! user's having one address: a call whose client logs in anew has two, one after the other.
//!
//! Nothing is lost. A session is on the disk before its client is told that it may send; its end is, before the call is
//! forgotten for good or else the next start of the server finds it open and writes the end itself, with the last
//! counters that were. Every record carries an id that no other has, and whatever is repeated changes nothing.

mod books;
mod clerk;
mod courier;
mod deliver;
mod history;
mod ledger;
mod record;
mod request;
mod servers;
mod station;

pub use books::{Begun, Books, Kept};
pub use clerk::{Clerk, Health, Receipt};
pub use courier::Courier;
pub use deliver::{Deliver, run as deliver};
pub use history::{History, Past, Question, State, history_text};
pub use ledger::{Error, Ledger};
pub use record::{Authentic, Entry, Facts, Kind, Moment, Record, SessionId, Termination, Traffic};
pub use request::{Nas, fill};
pub use servers::Servers;
pub use station::{NasPort, Stations, Template};
