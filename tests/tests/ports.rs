//! The life of the ports: what they refuse, what they leave behind (nothing), and what an end without warning leaves.
#![allow(
    clippy::unwrap_used,
    reason = "a test: what cannot go on must not go on"
)]

use std::time::Duration;

use turnpike_dataplane::api::Port;
use turnpike_dataplane::device::Device;
use turnpike_dataplane::netdev;
use turnpike_dataplane::ports::{self, ModeChoice, Ports};
use turnpike_dataplane::wake::Wake;
use turnpike_dataplane::xsk::Xsk;
use turnpike_tests::street::*;

/// Set for the process that [`the_next_start_cleans_up_after_a_kill`] starts to be killed.
const VICTIM: &str = "TURNPIKE_TEST_VICTIM";

/// The control plane keeps the ports behind a lock, and gives each device to a thread.
const _: () = {
    const fn sent<T: Send>() {}
    sent::<Ports>();
    sent::<Xsk>();
};

#[test]
fn a_queue_that_cannot_send_serves_no_worker() {
    let Some((_lab, client, server)) = street(1) else {
        return;
    };
    server
        .ip(&format!(
            "link add s1 numrxqueues 4 numtxqueues 2 type veth peer name c1 netns {}",
            client.name()
        ))
        .unwrap();
    let open = |workers| {
        inside(&server, move || {
            let mut config = config(ModeChoice::Auto, workers);
            config.access.interface = "s1".into();
            assert_eq!(ports::queues("s1").unwrap(), 2);
            let (ports, xsks) = Ports::open(&config)?;
            // Every queue that receives has a socket all the same.
            let access = ports.statistics().unwrap();
            let access = access.iter().filter(|s| s.port == Port::Access);
            Ok::<_, ports::Error>((xsks.len(), access.count()))
        })
    };
    assert_eq!(open(2).unwrap(), (2, 4));
    let refusal = open(3).unwrap_err();
    assert!(
        matches!(refusal, ports::Error::TooManyWorkers { queues: 2, .. }),
        "{refusal}"
    );
}

#[test]
fn workers_need_a_queue_each() {
    let Some((_lab, _client, server)) = street(1) else {
        return;
    };
    let (queues, refusal) = inside(&server, || {
        let refusal = Ports::open(&config(ModeChoice::Auto, 2)).map(drop);
        (ports::queues("s0").unwrap(), refusal.unwrap_err())
    });
    assert_eq!(queues, 1);
    assert!(
        matches!(refusal, ports::Error::TooManyWorkers { queues: 1, .. }),
        "{refusal}"
    );
    assert_eq!(server.interfaces().unwrap(), ["s0"], "something is left");
}

#[test]
fn both_names_of_the_host_port_have_to_fit() {
    let Some((_lab, _client, server)) = street(1) else {
        return;
    };
    let open = |name: &'static str| {
        inside(&server, move || {
            let mut config = config(ModeChoice::Auto, 1);
            config.host.interface = name.into();
            Ports::open(&config).map(|_| netdev::Netlink::open().unwrap().link(name).unwrap())
        })
    };
    assert!(open("thirteen-char").unwrap().is_some());
    // Linux would take it, but not with the suffix of our end.
    for name in ["fourteen-chars", ""] {
        let refusal = open(name).unwrap_err();
        assert!(
            matches!(refusal, ports::Error::Name { most: 13, .. }),
            "{refusal}"
        );
    }
    assert_eq!(server.interfaces().unwrap(), ["s0"]);
}

#[test]
fn the_next_start_cleans_up_after_a_kill() {
    if std::env::var_os(VICTIM).is_some() {
        // Inside the server's namespace already.
        let (_ports, mut xsks) = open(&config(ModeChoice::Auto, 1));
        println!("open");
        let wake = Wake::new().unwrap();
        loop {
            xsks[0].flush();
            xsks[0].wait(&wake, Duration::from_millis(100));
        }
    }
    let Some((_lab, client, server)) = street(1) else {
        return;
    };
    let mut command = server.command(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "the_next_start_cleans_up_after_a_kill",
            "--nocapture",
        ])
        .env(VICTIM, "1");
    let mut victim = server.start("victim", &command).unwrap();
    victim
        .wait_for_line(Duration::from_secs(20), |line| line.ends_with("open"))
        .unwrap();
    assert!(server.has_xdp("s0").unwrap());

    // While it lives nobody else gets its device, and it keeps its own.
    let refusal = inside(&server, || {
        Ports::open(&config(ModeChoice::Auto, 1))
            .map(drop)
            .unwrap_err()
    });
    assert!(matches!(refusal, ports::Error::InUse(_)), "{refusal}");
    assert!(server.has_xdp("s0").unwrap() && server.has_xdp("turnpike0-x").unwrap());

    victim.kill().unwrap();
    victim.wait(Duration::from_secs(5)).unwrap();
    let left = server.interfaces().unwrap();
    assert!(left.contains(&"turnpike0".to_owned()), "{left:?}");

    // The next one starts at once, with nothing of the old one in its way.
    let (opened, is_open) = std::sync::mpsc::channel();
    let serving = server
        .enter(move || {
            let (_ports, mut xsks) = open(&config(ModeChoice::Auto, 1));
            opened.send(()).unwrap();
            echo(&mut xsks[0], 100)
        })
        .unwrap();
    is_open.recv().unwrap();
    let numbers = inside(&client, || numbers_sent_and_echoed(100));
    assert_eq!(serving.join().unwrap(), 100);
    assert_eq!(numbers.len(), 100);
    assert_eq!(server.interfaces().unwrap(), ["s0"]);
    assert!(!server.has_xdp("s0").unwrap());
}

#[test]
fn somebody_elses_interface_is_not_touched() {
    let Some((_lab, _client, server)) = street(1) else {
        return;
    };
    server
        .ip("link add turnpike0 type veth peer name other")
        .unwrap();
    let refusal = inside(&server, || {
        Ports::open(&config(ModeChoice::Auto, 1))
            .map(drop)
            .unwrap_err()
    });
    assert!(matches!(&refusal, ports::Error::Foreign(name) if name == "turnpike0"));
    let left = server.interfaces().unwrap();
    assert!(left.contains(&"turnpike0".to_owned()) && left.contains(&"other".to_owned()));
    assert!(!server.has_xdp("s0").unwrap());

    let missing = inside(&server, || {
        let mut config = config(ModeChoice::Auto, 1);
        config.access.interface = "s9".into();
        Ports::open(&config).map(drop).unwrap_err()
    });
    assert_eq!(missing.to_string(), "there is no network interface s9");
}
