//! The receive window that is announced.

use turnpike_protocol::CallId;
use turnpike_protocol::pptp::{Caller, CallerAction, CallerConfig, ServerAction};

use crate::pair::Pair;

/// What the call's owner hears is what the caller is told.
#[test]
fn both_sides_know_the_window_that_was_announced() {
    for (announced, answered) in [(0, 64), (1, 1), (3, 3), (64, 64), (u16::MAX, u16::MAX)] {
        let mut pair = Pair::new(400);
        let config = CallerConfig {
            window: announced,
            ..CallerConfig::default()
        };
        pair.caller = Caller::new(config, pair.now);
        pair.caller_said.clear();
        pair.to_server.clear();
        assert!(pair.caller.call(CallId(0), pair.now));
        pair.settle();
        let known = pair.server_takes().into_iter().find_map(|said| match said {
            ServerAction::Call(call) => Some((call.window, call.our_window)),
            _ => None,
        });
        assert_eq!(known, Some((announced, answered)));
        let told = pair.caller_takes().into_iter().find_map(|said| match said {
            CallerAction::Connected { window, .. } => Some(window),
            _ => None,
        });
        assert_eq!(told, Some(answered));
    }
}
