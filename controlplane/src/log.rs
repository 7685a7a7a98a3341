//! The log: one line per event on standard error, for people or for machines.
//!
//! Events carry their facts as fields; the control connection and the call they belong to are fields too (`tunnel`,
//! `call`), whether they stand at the event or at a span around it.

use core::fmt;
use std::io::IsTerminal;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Starts the log of this process. Crates that are not ours are heard from WARN up only.
///
/// # Errors
/// When the process has a log already.
pub fn start(log: &Log) -> Result<(), tracing_subscriber::util::TryInitError> {
    let colours = std::io::stderr().is_terminal();
    subscriber(log, std::io::stderr, colours).try_init()
}

fn subscriber<W>(log: &Log, writer: W, colours: bool) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = Targets::new()
        .with_target("turnpike", log.level)
        .with_default(LevelFilter::from_level(log.level.min(tracing::Level::WARN)));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match log.format {
        LogFormat::Human => Box::new(registry.with(lines.with_target(false).with_ansi(colours))),
        LogFormat::Json => Box::new(
            registry.with(
                lines
                    .fmt_fields(JsonFields::new())
                    .event_format(FlatJson)
                    .with_ansi(false),
            ),
        ),
    }
}

/// One flat object per event: `time`, `level`, `message`, then the fields of the spans around it from the outermost
/// in, then its own; where a name comes twice, the innermost holds.
struct FlatJson;

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = Map::new();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        object.insert("time".to_owned(), time.into());
        object.insert(
            "level".to_owned(),
            event
                .metadata()
                .level()
                .as_str()
                .to_ascii_lowercase()
                .into(),
        );
        // Here, so that it stands in front; the event overwrites it.
        object.insert("message".to_owned(), Value::Null);
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>();
            let fields = fields.and_then(|fields| serde_json::from_str(&fields.fields).ok());
            if let Some(Value::Object(fields)) = fields {
                object.extend(fields);
            }
        }
        event.record(&mut Fields(&mut object));
        let line = serde_json::to_string(&object).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// Puts an event's fields into an object.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A log that a test can read.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Memory {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: tracing::Level, act: impl FnOnce()) -> Vec<String> {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(&Log { format, level }, move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, act);
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn one_call() {
        let tunnel = tracing::info_span!("tunnel", tunnel = 3, client = %"192.0.2.7");
        let _tunnel = tunnel.enter();
        let call = tracing::info_span!("call", call = 17);
        let _call = call.enter();
        tracing::info!(user = "al\nice", mppe = 128, up = true, "call is up");
        tracing::debug!("too small to be heard");
        tracing::info!(target: "netlink", "another crate's chatter");
        tracing::warn!(target: "netlink", "another crate's worry");
    }

    #[test]
    fn json_lines_are_flat() {
        let lines = logged(LogFormat::Json, tracing::Level::INFO, one_call);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        for (key, value) in [
            ("level", Value::from("info")),
            ("message", "call is up".into()),
            ("tunnel", 3.into()),
            ("client", "192.0.2.7".into()),
            ("call", 17.into()),
            ("user", "al\nice".into()),
            ("mppe", 128.into()),
            ("up", true.into()),
        ] {
            assert_eq!(line[key], value, "{line}");
        }
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn lines_for_people_have_the_same_facts() {
        let lines = logged(LogFormat::Human, tracing::Level::INFO, one_call);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        for part in [
            "INFO",
            "tunnel=3",
            "client=192.0.2.7",
            "call=17",
            "call is up",
            "user=\"al\\nice\"",
            "mppe=128",
        ] {
            assert!(lines[0].contains(part), "{part}: {}", lines[0]);
        }
        let quiet = logged(LogFormat::Human, tracing::Level::ERROR, one_call);
        assert!(quiet.is_empty(), "{quiet:#?}");
        let loud = logged(LogFormat::Human, tracing::Level::DEBUG, one_call);
        assert_eq!(loud.len(), 3, "{loud:#?}");
    }
}
