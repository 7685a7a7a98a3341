//! What is counted of RADIUS, by name.

use crate::counts::Count;

macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident = $name:literal;)*) => {
        /// Everything that is counted since start.
        #[derive(Debug, Default)]
        pub struct Counts {
            $($(#[$doc])* pub $field: Count,)*
        }

        impl Counts {
            /// All of them by name; those that count nothing are left out.
            pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($name, self.$field.get()),)*].into_iter().filter(|(_, count)| *count > 0)
            }
        }
    };
}

counts! {
    /// Requests, each counted once.
    requests = "radius_requests";
    /// Requests that were sent again.
    repeated = "radius_requests_repeated";
    /// Answers that were believed.
    answers = "radius_answers";
    /// Requests that one server left unanswered, each of its tries included.
    unanswered = "radius_requests_unanswered";
    /// Status-Server requests.
    probes = "radius_probes";
    /// Servers that were given up until they answer again.
    died = "radius_servers_died";
    /// Servers that answered again.
    revived = "radius_servers_revived";
    /// Datagrams from another address or port than the server's.
    other_source = "radius_dropped_other_source";
    /// Datagrams that are no packets.
    malformed = "radius_dropped_malformed";
    /// Answers to nothing that waits for one: late, repeated, or replayed.
    unexpected = "radius_dropped_unexpected";
    /// Answers of a kind that does not answer such a request.
    wrong_code = "radius_dropped_wrong_code";
    /// Answers whose authenticator is wrong: another secret, or forged.
    bad_authenticator = "radius_dropped_bad_authenticator";
    /// Answers whose Message-Authenticator is wrong.
    bad_signature = "radius_dropped_bad_message_authenticator";
    /// Answers without a Message-Authenticator where one is required.
    unsigned = "radius_dropped_no_message_authenticator";
}
