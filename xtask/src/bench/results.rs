//! `RESULTS.md`: what was found, in words and tables.

use std::fmt::Write as _;

use serde_json::Value;

use super::Found;
use super::figures::{Plot, of};
use super::machine::Machine;
use super::suites::Suite;

/// The page.
pub fn page(machine: &Machine, found: &[(Suite, Found)], plots: &[Plot], quick: bool) -> String {
    let mut text = format!(
        "# Results\n\n\
         Measured by `cargo xtask bench{}` at commit {} on {}, {} processors, Linux {}, {}. \
         Others find other times; ratios are of contenders that took turns in one run.\n",
        if quick { " --quick" } else { "" },
        machine.commit,
        machine.cpu,
        machine.cpus,
        machine.kernel,
        machine.started,
    );
    if !machine.huge_pages.is_empty() {
        let _ = writeln!(text, "\nTransparent huge pages: {}.", machine.huge_pages);
    }
    if quick {
        text.push_str(
            "\n**Measured in a hurry, to see that it works: these figures mean little.**\n",
        );
    }
    for warning in machine.warnings() {
        let _ = writeln!(text, "\n**{warning}**");
    }
    let absent: Vec<&str> = Suite::ALL
        .into_iter()
        .filter(|suite| of(found, *suite).is_none())
        .map(Suite::name)
        .collect();
    if !absent.is_empty() {
        let _ = writeln!(text, "\nLeft out: {}.", absent.join(", "));
    }
    for suite in Suite::ALL {
        let Some(found) = of(found, suite) else {
            continue;
        };
        let (title, about) = heading(suite);
        let _ = write!(text, "\n## {title}\n\n");
        match found {
            Ok(found) => {
                let _ = write!(text, "{about}\n\n");
                text.push_str(&match suite {
                    Suite::Cipher => cipher(found),
                    Suite::Packets => packets(found),
                    Suite::Instructions => instructions(found),
                    Suite::Million => super::million::page(found),
                    Suite::Storm => storms(found),
                    Suite::Flow => flows(found),
                    Suite::Workers => workers(found),
                    Suite::Stock => stock(found),
                    Suite::Road => super::road::page(found),
                });
                for plot in plots.iter().filter(|plot| plot.suite == suite) {
                    let _ = writeln!(text, "\n![{}](results/{})", plot.title, plot.file);
                }
            }
            Err(error) => {
                // What went wrong in the end stands at the end.
                let error = error.lines().rfind(|line| !line.is_empty());
                let _ = writeln!(text, "Not measured: {}", cell(error.unwrap_or_default()));
            }
        }
    }
    text
}

const fn heading(suite: Suite) -> (&'static str, &'static str) {
    match suite {
        Suite::Cipher => (
            "Cipher",
            "MPPE-128, 64 packets with fresh keys, of as many calls where nothing else is said, packets in cache, by `cargo bench -p turnpike-bench --bench cipher -- ratios`. In \
             each cell: ns for a packet, and how many times as fast as OpenSSL's low-level functions / as a loop of Linux' shape \
             (where one of them is missing: as the first two of the table).",
        ),
        Suite::Packets => (
            "Packet path",
            "A worker's turn over 64 packets between two memory devices: no kernel, no network card. Processor time for one packet, \
             by `cargo bench -p turnpike-bench --bench packet_path`; by `--bench crowds` where it is over many calls, of which each packet \
             is for another one. Then what PPP takes for one call's set-up and its password, on the wall's clock, by \
             `--bench set_up`.",
        ),
        Suite::Instructions => (
            "Instructions",
            "Counted by callgrind on the portable path, which is what that machine without SHA instructions takes; one call, 64 \
             packets in a turn, all in cache, by `cargo bench -p turnpike-bench --bench instructions`.",
        ),
        Suite::Million => (
            "A million calls",
            "In one process, each set up by the real state machines of both ends, from the control connection to IPCP, between \
             random peers; then packets of 64 octets through random calls, 64 in a turn, and an end to all. Processor time; both \
             ends' where calls are set up and end. By `cargo bench -p turnpike-tests --bench million`. TCP in the kernel is not part of it.",
        ),
        Suite::Road => (
            "Forwarding",
            "`turnpike-bench road`: two veth pairs, packets made in the kernel on one processor, forwarded by one thread on another \
             (what the far end does with them in the kernel runs there, too), contenders in turns on the same ports. Octets \
             of the inner IP packet. Up is out of tunnels, down into them; \"header\" puts one of a tunnel's length in front. Millions \
             of packets per second. No packet is sent that could not be received, so what is lost was lost on the way.",
        ),
        Suite::Storm => (
            "Call set-ups",
            "`turnpike-bench storm` against turnpike over veth pairs, with real TCP and GRE, MS-CHAPv2 and MPPE-128; a call is hung up \
             as soon as it is up. turnpike has one core for workers and control plane, the client has the others. First as fast as 64 at a time are \
             answered, then at half of that rate. Times in ms, from TCP's first packet to data.",
        ),
        Suite::Flow => (
            "Packets through calls",
            "`turnpike-bench flow` through 50 calls with MPPE-128, over raw sockets and veth pairs, both ends and the server on the \
             processors of this machine. Times in ms, one way, from when a packet was to be sent.",
        ),
        Suite::Workers => (
            "Two workers",
            "`turnpike-bench flow` with packets of 64 octets both ways through 100 calls with MPPE-128, from one address and from 50, over devices with \
             two queues, which Linux chooses for each call: a veth's driver tells nothing by which calls could be placed, so two workers hand half \
             over. Both workers, both ends and Linux share the processors of this machine: `most` shows what gets through then, and the \
             workers' processor time for a packet what the hand-over costs.",
        ),
        Suite::Stock => (
            "Against pptpd",
            "`turnpike-bench storm`, `flow` and `monkey` against pptpd and pppd with MPPE-128, in a guest (User Mode Linux), which has \
             one processor and is slow: this shows that the tools work with a server that is not ours, and not how fast that is. \
             Times in ms.",
        ),
    }
}

/// Text that cannot end a cell, nor begin anything.
fn cell(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .replace('|', "/")
        .replace('<', "&lt;")
}

/// With three significant digits, or more where there are more before the point.
pub(super) fn number(value: &Value) -> String {
    let Some(number) = value.as_f64() else {
        return "-".to_owned();
    };
    if number == 0.0 {
        return "0".to_owned();
    }
    let before = number.abs().log10().floor() as i32 + 1;
    let decimals = usize::try_from(3 - before).unwrap_or(0).min(4);
    format!("{number:.decimals$}")
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
    let mut line = "|".to_owned();
    for text in cells {
        let _ = write!(line, " {} |", cell(&text));
    }
    line.push('\n');
    line
}

pub(super) fn table(heads: &[String], rows: Vec<Vec<String>>) -> String {
    let mut text = row(heads.iter().cloned());
    text.push('|');
    text.push_str(&"---|".repeat(heads.len()));
    text.push('\n');
    text.extend(rows.into_iter().map(row));
    text
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn words(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn cipher(found: &Value) -> String {
    let measures: Vec<&Value> = list(&found["measures"]).collect();
    let mut text = String::new();
    for missing in list(&found["missing"]) {
        let _ = write!(text, "{}\n\n", cell(&words(missing)));
    }
    for (kinds, title) in [
        (&["whole", "mixed"][..], "Whole packets"),
        (&["one call"], "All of one call"),
        (&["crypt", "octets", "change"], "Their parts"),
    ] {
        let chosen: Vec<&&Value> = measures
            .iter()
            .filter(|measure| kinds.contains(&measure["kind"].as_str().unwrap_or_default()))
            .collect();
        let Some(first) = chosen.first() else {
            continue;
        };
        let mut heads = vec![title.to_owned()];
        heads.extend(chosen.iter().map(|measure| words(&measure["name"])));
        let rows = list(&first["contenders"])
            .enumerate()
            .map(|(at, contender)| {
                let mut cells = vec![words(&contender["name"])];
                cells.extend(chosen.iter().map(|measure| {
                    let one = &measure["contenders"][at];
                    let ratios: Vec<String> = list(&one["against"])
                        .map(|other| number(&other["best"]))
                        .collect();
                    format!("{} ns: {}", number(&one["ns"]), ratios.join(" / "))
                }));
                cells
            });
        text += &table(&heads, rows.collect());
        text.push('\n');
    }
    text
}

fn packets(found: &Value) -> String {
    let heads = ["", "ns", "between (95 %)", "million per second"].map(str::to_owned);
    let rows = list(found).map(|one| {
        let millions = one["ns"].as_f64().map(|ns| 1e3 / ns);
        vec![
            format!("{}: {}", words(&one["group"]), words(&one["function"])),
            number(&one["ns"]),
            format!("{} and {}", number(&one["low"]), number(&one["high"])),
            number(&millions.into()),
        ]
    });
    let mut text = table(&heads, rows.collect());
    text.push_str(&growth(found));
    text
}

/// How many times as long a packet takes among more calls.
fn growth(found: &Value) -> String {
    let grown = list(found).filter(|one| one["growth"].is_number());
    let rows = grown.map(|one| {
        vec![
            format!("{}: {}", words(&one["function"]), words(&one["group"])),
            number(&one["growth"]),
            number(&one["best_growth"]),
            number(&one["best"]),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    let heads = [
        "crowds in turns",
        "times as long as among the fewest calls",
        "best against best",
        "best, ns",
    ];
    format!("\n{}", table(&heads.map(str::to_owned), rows))
}

fn instructions(found: &Value) -> String {
    let heads = ["", "octets", "instructions a packet"].map(str::to_owned);
    let rows = list(found).map(|one| {
        vec![
            words(&one["name"]),
            one["octets"].to_string(),
            number(&one["instructions"]),
        ]
    });
    table(&heads, rows.collect())
}

/// Each run, and the phases of the first of each kind.
fn storms(found: &Value) -> String {
    let runs: Vec<(&String, &Value)> = found.as_object().into_iter().flatten().collect();
    let heads = ["run", "calls", "failed", "per second", "p50", "p99", "max"].map(str::to_owned);
    let rows = runs.iter().map(|(name, report)| {
        let ms = &report["total_ms"];
        vec![
            (*name).clone(),
            report["up"].to_string(),
            report["failed"].to_string(),
            number(&report["rate"]),
            number(&ms["p50"]),
            number(&ms["p99"]),
            number(&ms["max"]),
        ]
    });
    let mut text = table(&heads, rows.collect());
    for (name, report) in runs.iter().filter(|(name, _)| name.ends_with("-1")) {
        let heads = [&**name, "p50", "p90", "p99", "p99.9"].map(str::to_owned);
        let rows = list(&report["phases"]).map(|phase| {
            let mut cells = vec![words(&phase["phase"])];
            cells.extend(["p50", "p90", "p99", "p999"].map(|of| number(&phase["ms"][of])));
            cells
        });
        text.push('\n');
        text += &table(&heads, rows.collect());
    }
    text
}

fn flows(found: &Value) -> String {
    let heads = [
        "octets, way",
        "packets sent",
        "lost",
        "received per second",
        "p50",
        "p99",
        "p99.9",
        "sent late by, p99",
    ]
    .map(str::to_owned);
    let mut rows = Vec::new();
    for report in found
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, report)| report)
    {
        for trial in list(&report["trials"]) {
            for way in list(&trial["ways"]) {
                let ms = &way["latency_ms"];
                rows.push(vec![
                    format!("{}, {}", words(&trial["size"]), words(&way["way"])),
                    way["sent"].to_string(),
                    way["lost"].to_string(),
                    number(&way["received_pps"]),
                    number(&ms["p50"]),
                    number(&ms["p99"]),
                    number(&ms["p999"]),
                    number(&way["lateness_ms"]["p99"]),
                ]);
            }
        }
    }
    table(&heads, rows)
}

/// A row for each run.
fn workers(found: &Value) -> String {
    let heads = [
        "workers, addresses, rate",
        "received per second, up / down",
        "workers' ns for a packet",
        "handed over",
        "overtaken",
        "lost",
    ]
    .map(str::to_owned);
    let reports = found.as_object().into_iter().flatten();
    let rows = reports.map(|(name, report)| {
        let ways: Vec<&Value> = list(&report["flow"]["trials"])
            .flat_map(|trial| list(&trial["ways"]))
            .collect();
        let sum = |what: &str| {
            ways.iter()
                .filter_map(|way| way[what].as_u64())
                .sum::<u64>()
        };
        let float = |value: &Value| value.as_f64().unwrap_or_default();
        let forwarded = float(&report["packets"]["forwarded"]).max(1.0);
        let ticks: f64 = list(&report["worker_ticks"]).map(float).sum();
        let seconds = ticks / float(&report["ticks_per_second"]).max(1.0);
        let share = 100.0 * float(&report["packets"]["handed_over"]) / forwarded;
        let received: Vec<String> = ways
            .iter()
            .map(|way| number(&way["received_pps"]))
            .collect();
        vec![
            name.clone(),
            received.join(" / "),
            number(&(seconds * 1e9 / forwarded).into()),
            format!("{share:.1} %"),
            sum("reordered").to_string(),
            format!(
                "{:.2} %",
                100.0 * sum("lost") as f64 / sum("sent").max(1) as f64
            ),
        ]
    });
    table(&heads, rows.collect())
}

/// All three tools' reports.
fn stock(found: &Value) -> String {
    let one = |name: &str| {
        Value::Object(
            [(name.to_owned(), found[name].clone())]
                .into_iter()
                .collect(),
        )
    };
    let monkey = &found["monkey"];
    let heads = ["monkey", "times", "p50", "max"].map(str::to_owned);
    let rows = list(&monkey["monkey"]["kinds"]).map(|kind| {
        vec![
            words(&kind["kind"]),
            kind["count"].to_string(),
            number(&kind["back_ms"]["p50"]),
            number(&kind["back_ms"]["max"]),
        ]
    });
    format!(
        "{}\n{}\nOf {} calls {} were up at the end, after {} ends and negotiations:\n\n{}",
        storms(&one("storm")),
        flows(&one("flow")),
        monkey["calls"],
        monkey["back"],
        monkey["monkey"]["strikes"],
        table(&heads, rows.collect()),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::figures::tests::{costs, table as ciphers};
    use super::*;

    fn machine() -> Machine {
        Machine {
            cpu: "a processor".to_owned(),
            cpus: 2,
            kernel: "6.1".to_owned(),
            started: "2026-11-21T22:00:00Z".to_owned(),
            huge_pages: "madvise".to_owned(),
            commit: "abc with changes".to_owned(),
            load: 0.0,
            idle_class: false,
        }
    }

    #[test]
    fn growth_is_that_of_crowds() {
        let one = json!({"group": "over 70000 calls", "function": "decap plain/64", "ns": 50.0,
            "best": 40.0, "growth": 1.25, "best_growth": 1.5});
        assert_eq!(growth(&costs()), "");
        assert!(
            growth(&json!([one]))
                .contains("| decap plain/64: over 70000 calls | 1.25 | 1.50 | 40.0 |")
        );
    }

    #[test]
    fn everything_that_was_found_is_on_the_page() {
        let ms = json!({"p50": 4.56789, "p90": 7.0, "p99": 10.0, "p999": 11.0, "max": 12.0});
        let storm = json!({"up": 290, "failed": 3, "rate": 987.654, "total_ms": ms,
            "phases": [{"phase": "lcp", "ms": ms}]});
        let flow = json!({"trials": [{"size": "64", "ways": [{"way": "up", "sent": 100, "lost": 1,
            "received_pps": 99.0, "latency_ms": ms, "lateness_ms": ms}]}]});
        let found = [
            (Suite::Cipher, Ok(ciphers())),
            (Suite::Packets, Ok(costs())),
            (
                Suite::Instructions,
                Ok(json!([{"name": "decap in clear", "octets": 64, "instructions": 974.4}])),
            ),
            (
                Suite::Storm,
                Ok(json!({"fastest-1": storm, "fastest-2": storm})),
            ),
            (Suite::Flow, Ok(json!({"imix": flow}))),
            (
                Suite::Workers,
                Ok(
                    json!({"2-one-steady": {"ticks_per_second": 100, "worker_ticks": [1, 2],
                    "packets": {"forwarded": 1000, "handed_over": 500}, "flow": flow}}),
                ),
            ),
            (
                Suite::Stock,
                Ok(
                    json!({"storm": storm, "flow": flow, "monkey": {"calls": 10, "back": 9,
                    "monkey": {"strikes": 4, "kinds": [{"kind": "tcp-reset", "count": 4, "back_ms": ms}]}}}),
                ),
            ),
        ];
        let plots = [Plot {
            suite: Suite::Storm,
            title: "storm fastest 1 percentiles".to_owned(),
            file: "storm-fastest-1-percentiles.svg".to_owned(),
        }];
        let text = page(&machine(), &found, &plots, false);
        for part in [
            "Transparent huge pages: madvise.",
            "at commit abc with changes on a processor, 2 processors, Linux 6.1, 2026",
            "| turnpike, together (rows) | 225 ns: 4.00 / 3.60 | 225 ns: 4.00 / 3.60 |",
            "| decap: plain/64 | 30.0 | 29.0 and 31.0 | 33.3 |",
            "| decap in clear | 64 | 974 |",
            "\nLeft out: million, road.\n",
            "| fastest-2 | 290 | 3 | 988 | 4.57 | 10.0 | 12.0 |",
            "| lcp | 4.57 | 7.00 | 10.0 | 11.0 |",
            "| 64, up | 100 | 1 | 99.0 |",
            "| 2-one-steady | 99.0 | 30000 | 50.0 % | 0 | 1.00 % |",
            "Of 10 calls 9 were up at the end, after 4 ends",
            "| tcp-reset | 4 | 4.57 | 12.0 |",
            "![storm fastest 1 percentiles](results/storm-fastest-1-percentiles.svg)",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        assert!(!text.contains("in a hurry"));
    }

    #[test]
    fn what_is_missing_is_said() {
        let found = [(Suite::Storm, Err("it failed:\nno | way\n".to_owned()))];
        let text = page(&machine(), &found, &[], true);
        assert!(text.contains("Not measured: no / way\n"), "{text}");
        assert!(text.contains("in a hurry") && text.contains("bench --quick`"));
        assert!(!text.contains("## Cipher"), "nobody asked for it");
        assert!(text.contains("Left out: cipher, "), "{text}");
    }
}
