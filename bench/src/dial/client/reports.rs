//! What is said in the end.

use super::Client;
use crate::dial::report::CallReport;

impl Client<'_> {
    /// Every call, by id.
    pub(in crate::dial) fn reports(&self) -> Vec<CallReport> {
        self.calls
            .iter()
            .map(|(id, call)| {
                let (reason, error, asked) = call
                    .over
                    .clone()
                    .unwrap_or_else(|| ("did not end in time".to_owned(), None, false));
                CallReport {
                    call_id: *id,
                    came_up: call.came_up,
                    failed: !(call.came_up && asked),
                    inner_address: call.address,
                    reason,
                    error,
                    counters: call.counters,
                }
            })
            .collect()
    }
}
