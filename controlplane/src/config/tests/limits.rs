//! `[limits]`.

use super::*;

#[test]
fn limits_have_bounds() {
    assert!(fault("limits", "calls = 0").contains("outside 1 to"));
    assert!(
        fault("limits", "unauthenticated_per_source = 0")
            .contains("leave the key out for a quarter")
    );
    let default = |calls| {
        config(&with("limits", calls))
            .limits
            .unauthenticated_per_source
    };
    assert_eq!((default("calls = 9"), default("calls = 400")), (8, 100));
    assert!(
        fault("limits", "setup_time = \"1s\"").contains("is 1s; write something from 5s to 10m")
    );
    assert!(fault("limits", "setting_up = 0").contains("on a path of 100 ms"));
    assert!(fault("limits", "setting_up_wait = \"2m\"").contains("from 0s to 1m"));
    assert!(
        fault("limits", "same_user = \"one\"")
            .contains("write one of \"allow\", \"replace\", \"refuse\"")
    );
    assert!(fault("limits", "echo_interval = \"soon\"").contains("write a number with a unit"));
}

#[test]
fn relaxed_sources_leave_as_many_calls_as_there_are_ids() {
    assert!(
        fault("access", "source_check = \"loose\"")
            .contains("cannot be \"loose\"; write one of \"strict\", \"relaxed\"")
    );
    let text = |check: &str, calls: u32| {
        with("access", &format!("source_check = \"{check}\""))
            + &format!("[limits]\ncalls = {calls}\n")
    };
    assert_eq!(config(&text("strict", 70_000)).limits.calls, 70_000);
    assert_eq!(config(&text("relaxed", 65_535)).limits.calls, 65_535);
    assert_eq!(
        faults(&text("relaxed", 65_536)),
        [
            "t.toml:9: `calls` in [limits] is 65536, but with source_check = \"relaxed\" call ids cannot repeat and there are 65535; write at most 65535, or source_check = \"strict\" in [access]"
        ]
    );
    // The default stays below.
    let wide = SMALL.replace("10.20.0.10-10.20.0.250", "10.22.0.0/15");
    let wide = wide.replace("[network]", "source_check = \"relaxed\"\n[network]");
    assert_eq!(config(&wide).limits.calls, 65_000);
}
