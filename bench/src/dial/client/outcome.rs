//! What becomes of a call: it is up, or over.

use super::*;

impl Client<'_> {
    pub(super) fn up_now(&mut self, at: usize, id: CallId, terms: &Terms, info: &LinkInfo) {
        let seconds = self.now().since(self.connections[at].begun).as_secs_f64();
        let Some(call) = self.calls.get_mut(&id.0) else {
            return;
        };
        let before = call.address.replace(terms.address);
        let first = !core::mem::replace(&mut call.came_up, true);
        if before != Some(terms.address)
            && let Err(error) = self.install(id, before, terms)
        {
            tracing::error!(call = id.0, "{error}");
        }
        if first {
            self.progress.inc(1);
            let line = UpLine::new(id.0, terms, info, seconds);
            let printer = self.printer;
            self.progress.suspend(|| printer.line(&Line::Up(&line)));
        }
    }

    pub(super) fn install(
        &mut self,
        id: CallId,
        before: Option<Ipv4Addr>,
        terms: &Terms,
    ) -> Result<(), linux::Error> {
        let address = terms.address;
        if let Some(before) = before {
            self.linux.address_remove(before)?;
        }
        self.linux.address_add(address)?;
        if !core::mem::replace(&mut self.routed, true) {
            for prefix in self.options.prefixes() {
                self.linux.route_add(prefix, address)?;
            }
            if self.options.inform {
                // Answers come from there, and Linux may want to see a way back to it.
                self.linux.route_add(terms.server_address.into(), address)?;
                tokio::spawn(inform::run(id.0, address, self.messages.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn over(
        &mut self,
        id: CallId,
        reason: String,
        error: Option<u32>,
        asked: bool,
        counters: CallCounters,
    ) {
        let Some(call) = self.calls.get_mut(&id.0) else {
            return;
        };
        if call.over.is_some() {
            return;
        }
        call.counters = counters;
        let line = OverLine {
            call_id: id.0,
            reason: reason.clone(),
            error,
        };
        let came_up = call.came_up;
        call.over = Some((reason, error, asked));
        if let Some(address) = call.address
            && let Err(error) = self.linux.address_remove(address)
        {
            tracing::warn!("{error}");
        }
        if asked && came_up {
            return;
        }
        let printer = self.printer;
        self.progress.suspend(|| {
            printer.line(&if came_up {
                Line::Ended(&line)
            } else {
                Line::Failed(&line)
            });
        });
    }
}
