use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::net::UdpSocket;
use turnpike_protocol::radius::{Attribute, Builder, Code, Packet, Seal, Secret};

use super::*;

const SECRET: &str = "a secret of the tests";

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

/// What a server does with the request before it; answers go out in this order.
type Behaviour = dyn Fn(usize, &Packet<'_>) -> Vec<Vec<u8>> + Send + Sync;

struct Toy {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Toy {
    async fn start(ip: IpAddr, behaviour: Box<Behaviour>) -> Self {
        let socket = UdpSocket::bind((ip, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = requests.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let request = Packet::parse(&buffer[..length]).unwrap();
                let number = seen.fetch_add(1, Ordering::Relaxed);
                for answer in behaviour(number, &request) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        Self { address, requests }
    }

    async fn local(
        behaviour: impl Fn(usize, &Packet<'_>) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self::start(Ipv4Addr::LOCALHOST.into(), Box::new(behaviour)).await
    }

    fn settings(&self) -> ServerSettings {
        ServerSettings {
            port: self.address.port(),
            timeout: Duration::from_millis(150),
            dead_time: Duration::from_millis(100),
            ..ServerSettings::new(self.address.ip(), secret(SECRET))
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

fn accept(request: &Packet<'_>, with: &str, signed: bool) -> Vec<u8> {
    let secret = secret(with);
    let (identifier, seal) = (
        request.identifier(),
        Seal::Response(request.authenticator()),
    );
    let code = Code::ACCESS_ACCEPT;
    let builder = if signed {
        Builder::new(code, identifier, seal, &secret)
    } else {
        Builder::unsigned(code, identifier, seal, &secret)
    };
    let name = request.find(Attribute::USER_NAME).unwrap_or_default();
    builder.octets(Attribute::CLASS, name).finish().unwrap()
}

async fn ask(client: &Client, name: &str) -> Result<Answer, Failure> {
    let name = name.to_owned();
    client
        .ask(Code::ACCESS_REQUEST, &move |builder| {
            builder.text(Attribute::USER_NAME, &name)
        })
        .await
}

fn client(servers: &[ServerSettings]) -> Client {
    Client::new(servers, Purpose::Authentication)
}

fn count(client: &Client, name: &str) -> u64 {
    let found = client.counts().by_name().find(|(other, _)| *other == name);
    found.map_or(0, |(_, count)| count)
}

#[tokio::test]
async fn more_than_256_requests_wait_at_once() {
    // None is answered before all have come: each needs an identifier of its own.
    let waiting = std::sync::Mutex::new(Vec::<Vec<u8>>::new());
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    let own = socket.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        let mut froms = Vec::new();
        loop {
            let (length, from) = own.recv_from(&mut buffer).await.unwrap();
            let request = Packet::parse(&buffer[..length]).unwrap();
            request.verify_request(&secret(SECRET)).unwrap();
            froms.push(from);
            waiting.lock().unwrap().push(accept(&request, SECRET, true));
            let all = if froms.len() == 700 {
                std::mem::take(&mut *waiting.lock().unwrap())
            } else {
                Vec::new()
            };
            for (answer, from) in all.iter().zip(&froms) {
                own.send_to(answer, from).await.unwrap();
            }
        }
    });
    let settings = ServerSettings {
        port: address.port(),
        timeout: Duration::from_secs(30),
        ..ServerSettings::new(address.ip(), secret(SECRET))
    };
    let client = client(&[settings]);
    let answers = join_all((0..700).map(|number| {
        let client = &client;
        async move {
            let name = format!("user {number}");
            let answer = ask(client, &name).await.unwrap();
            let class = answer.packet().find(Attribute::CLASS).unwrap().to_vec();
            assert_eq!(class, name.as_bytes(), "somebody else's answer");
        }
    }));
    answers.await;
    assert_eq!(count(&client, "radius_requests"), 700);
    assert_eq!(count(&client, "radius_requests_repeated"), 0);
}

#[tokio::test]
async fn ipv6_is_a_way_too() {
    let toy = Toy::start(
        Ipv6Addr::LOCALHOST.into(),
        Box::new(|_, request| vec![accept(request, SECRET, true)]),
    )
    .await;
    let client = client(&[toy.settings()]);
    assert_eq!(
        ask(&client, "alice").await.unwrap().packet().code(),
        Code::ACCESS_ACCEPT
    );
}

#[tokio::test]
async fn a_lost_request_goes_out_again_as_it_was() {
    let first = std::sync::Mutex::new(None);
    let toy = Toy::local(move |number, request| {
        let mut first = first.lock().unwrap();
        if number == 0 {
            *first = Some(request.octets().to_vec());
            return vec![];
        }
        assert_eq!(first.as_deref(), Some(request.octets()));
        vec![accept(request, SECRET, true)]
    })
    .await;
    let client = client(&[toy.settings()]);
    assert!(ask(&client, "alice").await.is_ok());
    assert_eq!(count(&client, "radius_requests_repeated"), 1);
}

#[tokio::test]
async fn forgeries_are_counted_and_let_nobody_in() {
    let toy = Toy::local(|_, request| {
        let right = accept(request, SECRET, true);
        let mut other_code = right.clone();
        other_code[0] = 5;
        let mut other_identifier = right.clone();
        other_identifier[1] ^= 1;
        let mut cut = right.clone();
        cut.pop();
        // As it would be made from a collision: all right but the Message-Authenticator.
        let secret = secret(SECRET);
        let seal = Seal::Response(request.authenticator());
        let blast = Builder::unsigned(Code::ACCESS_ACCEPT, request.identifier(), seal, &secret)
            .octets(Attribute::MESSAGE_AUTHENTICATOR, &[0x55; 16])
            .finish()
            .unwrap();
        let accounting = Builder::new(
            Code::ACCOUNTING_RESPONSE,
            request.identifier(),
            seal,
            &secret,
        );
        let wrong_kind = accounting.finish().unwrap();
        let unsigned = accept(request, SECRET, false);
        let other_secret = accept(request, "another secret", true);
        vec![
            other_code,
            other_identifier,
            cut,
            blast,
            wrong_kind,
            unsigned,
            other_secret,
            b"?".to_vec(),
        ]
    })
    .await;
    let settings = ServerSettings {
        tries: 1,
        timeout: Duration::from_millis(500),
        ..toy.settings()
    };
    let client = client(&[settings]);
    let failure = ask(&client, "alice").await.err().unwrap();
    assert!(matches!(&failure, Failure::Unsigned(_)), "{failure:?}");
    assert!(
        failure
            .to_string()
            .contains("message_authenticator = \"accept_missing\"")
    );
    for (name, times) in [
        ("radius_answers", 0),
        ("radius_dropped_bad_authenticator", 2),
        ("radius_dropped_bad_message_authenticator", 1),
        ("radius_dropped_no_message_authenticator", 1),
        ("radius_dropped_wrong_code", 1),
        ("radius_dropped_unexpected", 1),
        ("radius_dropped_malformed", 2),
    ] {
        assert_eq!(count(&client, name), times, "{name}");
    }
}

#[tokio::test]
async fn another_source_is_not_believed() {
    let stranger = Arc::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let request = Packet::parse(&buffer[..length]).unwrap();
        stranger
            .send_to(&accept(&request, SECRET, true), from)
            .unwrap();
    });
    let settings = ServerSettings {
        port: address.port(),
        tries: 1,
        timeout: Duration::from_millis(500),
        ..ServerSettings::new(address.ip(), secret(SECRET))
    };
    let client = client(&[settings]);
    assert_eq!(ask(&client, "alice").await.err(), Some(Failure::Silent));
    assert_eq!(count(&client, "radius_dropped_other_source"), 1);
}

#[tokio::test]
async fn an_old_answer_to_another_request_is_not_believed() {
    // The first answer, again for every later request: right once, replayed after that.
    let first = std::sync::Mutex::new(None::<Vec<u8>>);
    let toy = Toy::local(move |_, request| {
        let mut first = first.lock().unwrap();
        let answer = first.get_or_insert_with(|| accept(request, SECRET, true));
        let mut replayed = answer.clone();
        replayed[1] = request.identifier();
        vec![answer.clone(), replayed]
    })
    .await;
    let settings = ServerSettings {
        tries: 1,
        timeout: Duration::from_millis(300),
        ..toy.settings()
    };
    let client = client(&[settings]);
    assert!(ask(&client, "alice").await.is_ok());
    assert!(matches!(
        ask(&client, "mallory").await,
        Err(Failure::WrongSecret(_))
    ));
}

#[tokio::test]
async fn what_an_old_server_lacks_can_be_accepted() {
    let toy = Toy::local(|_, request| vec![accept(request, SECRET, false)]).await;
    let strict = ServerSettings {
        tries: 1,
        ..toy.settings()
    };
    assert!(matches!(
        ask(&client(core::slice::from_ref(&strict)), "alice").await,
        Err(Failure::Unsigned(_))
    ));
    let lenient = ServerSettings {
        require_message_authenticator: false,
        ..strict
    };
    assert!(ask(&client(&[lenient]), "alice").await.is_ok());
}

#[tokio::test]
async fn silence_and_another_secret_are_told_apart() {
    let silent = Toy::local(|_, _| vec![]).await;
    let other = Toy::local(|_, request| vec![accept(request, "another secret", true)]).await;
    let once = |toy: &Toy| ServerSettings {
        tries: 1,
        ..toy.settings()
    };
    let failure = ask(&client(&[once(&silent)]), "alice").await.err();
    assert_eq!(failure, Some(Failure::Silent));
    let both = client(&[once(&other), once(&silent)]);
    let failure = ask(&both, "alice").await.err();
    assert!(
        matches!(failure, Some(Failure::WrongSecret(_))),
        "{failure:?}"
    );
    assert_eq!(
        ask(&client(&[]), "alice").await.err(),
        Some(Failure::NoServer)
    );
}

#[tokio::test]
async fn a_dead_server_is_passed_over_until_it_answers_a_probe() {
    let alive = Arc::new(AtomicBool::new(false));
    let lives = alive.clone();
    let first = Toy::local(move |_, request| {
        if lives.load(Ordering::Relaxed) {
            vec![accept(request, SECRET, true)]
        } else {
            vec![]
        }
    })
    .await;
    let second = Toy::local(|_, request| vec![accept(request, SECRET, true)]).await;
    let preferred = ServerSettings {
        tries: 2,
        name: "first".to_owned(),
        ..first.settings()
    };
    let other = ServerSettings {
        priority: 2,
        name: "second".to_owned(),
        ..second.settings()
    };
    let client = client(&[other, preferred]);
    let asked = |answer: Result<Answer, Failure>| answer.unwrap().server().name.clone();
    assert_eq!(asked(ask(&client, "alice").await), "second");
    assert_eq!(count(&client, "radius_servers_died"), 1);
    // Passed over now: it sees nothing but probes.
    let before = first.requests();
    assert_eq!(before, 2);
    assert_eq!(asked(ask(&client, "alice").await), "second");
    assert_eq!(second.requests(), 2);
    alive.store(true, Ordering::Relaxed);
    for _ in 0..500 {
        if count(&client, "radius_servers_revived") == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(count(&client, "radius_probes") > 0);
    assert_eq!(asked(ask(&client, "alice").await), "first");
    assert!(client.servers().all(|(_, lives)| lives));
}

#[test]
fn priority_comes_before_weight() {
    let servers = [("backup", 2, 1000), ("big", 1, 3), ("small", 1, 1)];
    let mut first = std::collections::HashMap::new();
    for _ in 0..4000 {
        let order = ordered(&servers, |(_, priority, weight)| (*priority, *weight));
        assert_eq!(order[2].0, "backup");
        *first.entry(order[0].0).or_insert(0) += 1;
    }
    // Three of four, give or take eight standard deviations.
    assert!((2780..3220).contains(&first["big"]), "{first:?}");
}
