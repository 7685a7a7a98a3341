//! Questions inside calls, and what becomes of the answers.

use turnpike_dataplane::api::{Command, FrameBytes};
use turnpike_protocol::CallId;

use super::Client;
use crate::dial::inform::Told;
use crate::dial::report::{InformedLine, Line, UninformedLine};

impl Client<'_> {
    /// Sends a packet of ours, as no program could: it goes to everybody on the link.
    pub(super) fn ask(&mut self, id: u16, packet: &[u8]) {
        let call = self.calls.get(&id).and_then(|call| {
            let subscriber = self.connections[call.connection].subscriber.as_ref()?;
            call.over.is_none().then(|| subscriber.call_ref(CallId(id)))
        });
        if let (Some(call), Some(packet)) = (call, FrameBytes::new(packet)) {
            self.command(Command::SendInner { call, packet });
        }
    }

    pub(super) fn told(&mut self, id: u16, told: anyhow::Result<Told>) {
        let address = self.calls.get(&id).and_then(|call| call.address);
        let printer = self.printer;
        match told {
            Ok(told) => {
                for route in &told.routes {
                    if let Some(address) = address
                        && let Err(error) = self.linux.route_add(route.prefix, address)
                    {
                        tracing::error!(call = id, route = %route.prefix, "{error}");
                    }
                }
                let line = InformedLine { call_id: id, told };
                self.progress
                    .suspend(|| printer.line(&Line::Informed(&line)));
            }
            Err(error) => {
                let line = UninformedLine {
                    call_id: id,
                    reason: format!("{error:#}"),
                };
                self.progress
                    .suspend(|| printer.line(&Line::Uninformed(&line)));
            }
        }
    }
}
