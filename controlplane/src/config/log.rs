//! `[log]`.

use super::read::{Reader, Section};
use super::{Log, LogFormat};

pub(super) fn log_of(reader: &mut Reader<'_>, section: Option<Section<'_>>) -> Log {
    let mut log = Log {
        format: LogFormat::default(),
        level: tracing::Level::INFO,
    };
    if let Some(mut section) = section {
        let format = section.choice(
            reader,
            "format",
            &[("human", LogFormat::Human), ("json", LogFormat::Json)],
        );
        let level = section.choice(
            reader,
            "level",
            &[
                ("error", tracing::Level::ERROR),
                ("warn", tracing::Level::WARN),
                ("info", tracing::Level::INFO),
                ("debug", tracing::Level::DEBUG),
                ("trace", tracing::Level::TRACE),
            ],
        );
        section.finish(reader);
        log.format = format.map_or(log.format, |format| format.value);
        log.level = level.map_or(log.level, |level| level.value);
    }
    log
}
