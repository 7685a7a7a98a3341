//! Logins that a RADIUS server judges: a server on loopback UDP, made of the same codec, and clients of every method.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod rig;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rig::{PASSWORD, Rig, Saw};
use tokio::net::UdpSocket;
use turnpike_controlplane::aaa::{
    Account, Backend, Chain, RadiusBackend, Rules, Secret, UnknownFilter, Users,
};
use turnpike_controlplane::admission::Admission;
use turnpike_controlplane::listener::Limits;
use turnpike_controlplane::radius::{Client, Purpose, ServerSettings};
use turnpike_controlplane::rivals::SameUser;
use turnpike_controlplane::tunnel::Settings;
use turnpike_dataplane::rings::RingSizes;
use turnpike_protocol::mppe::{Allowed, Policy, Strength, Strengths};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{AuthProtocol, ClientLink, Credentials, End, Proof};
use turnpike_protocol::radius::{self, Attribute, Builder, Code, Packet, Seal, microsoft};

const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECRET: &str = "shared by two";
const LIMITS: Limits = Limits {
    per_source: 64,
    total: 1000,
};

/// Every user has the same password; the name says what the server does with it.
#[derive(Default)]
struct Server {
    requests: AtomicUsize,
    /// Attributes of the last request, as text.
    last: Mutex<Vec<String>>,
}

impl Server {
    fn answer(&self, request: &Packet<'_>) -> Option<Vec<u8>> {
        let secret = radius::Secret::new(SECRET).unwrap();
        request.verify_request(&secret).unwrap();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let attributes = request.attributes();
        *self.last.lock().unwrap() = attributes
            .map(|(attribute, value)| format!("{attribute}={}", radius::show(attribute, value)))
            .collect();
        let credentials = microsoft::credentials(request, &secret).unwrap();
        let name = String::from_utf8(credentials.name().to_vec()).unwrap();
        let other = radius::Secret::new("another").unwrap();
        let secret = if name == "othersecret" {
            &other
        } else {
            &secret
        };
        let begin = |code| {
            let seal = Seal::Response(request.authenticator());
            if name == "unsigned" {
                Builder::unsigned(code, request.identifier(), seal, secret)
            } else {
                Builder::new(code, request.identifier(), seal, secret)
            }
        };
        let error = |text: &str| {
            let value = [&[1], text.as_bytes()].concat();
            begin(Code::ACCESS_REJECT).octets(Attribute::MS_CHAP_ERROR, &value)
        };
        let password = Password::new(PASSWORD);
        let proof = match credentials.verify(&password.clone().into()) {
            Ok(proof) => proof,
            Err(_) => return error("E=691 R=0 C=00 V=3").finish().ok(),
        };
        let mut builder = begin(Code::ACCESS_ACCEPT);
        if let Proof::MsChapV2 {
            authenticator_response,
            ..
        } = &proof
            && name != "proofless"
        {
            let value = [&[1], &authenticator_response[..]].concat();
            builder = builder.octets(Attribute::MS_CHAP2_SUCCESS, &value);
        }
        let keys = proof.into_keys();
        builder = match (&credentials, keys) {
            (_, None) => builder,
            _ if name == "keyless" => builder,
            (Credentials::MsChapV1 { .. }, _) => {
                let lm = password.lm_hash();
                let lm = lm.as_ref().and_then(|hash| hash.bytes().first_chunk::<8>());
                microsoft::add_symmetric_keys(builder, lm, &password.nt_hash().hashed())
            }
            (_, Some(_)) if name == "garbled" => builder
                .octets(Attribute::MS_MPPE_SEND_KEY, &[0; 34])
                .octets(Attribute::MS_MPPE_RECV_KEY, &[1; 34]),
            (_, Some(keys)) => microsoft::add_asymmetric_keys(builder, &keys, 7),
        };
        builder = match name.as_str() {
            "silent" => return None,
            "disabled" => error("E=647 R=0"),
            "expired" => error("E=648 R=0 V=3"),
            "filtered" => builder.text(Attribute::FILTER_ID, "no-such-filter"),
            "telnet" => builder.integer(Attribute::SERVICE_TYPE, 1),
            "unheardof" => builder.integer(Attribute::SERVICE_TYPE, 4711),
            "framed" => builder
                .integer(Attribute::SERVICE_TYPE, 2)
                .integer(Attribute::FRAMED_PROTOCOL, 1)
                .address(Attribute::FRAMED_IP_ADDRESS, Ipv4Addr::new(10, 20, 1, 77)),
            "pooled" => builder
                .address(
                    Attribute::FRAMED_IP_ADDRESS,
                    Ipv4Addr::new(255, 255, 255, 254),
                )
                .text(Attribute::FRAMED_POOL, "business"),
            "lost" => builder.text(Attribute::FRAMED_POOL, "no-such-pool"),
            "elsewhere" => {
                builder.address(Attribute::FRAMED_IP_ADDRESS, Ipv4Addr::new(192, 0, 2, 77))
            }
            "ours" => builder.address(
                Attribute::FRAMED_IP_ADDRESS,
                Ipv4Addr::new(255, 255, 255, 254),
            ),
            "secretive" => builder.integer(Attribute::MS_MPPE_ENCRYPTION_POLICY, 2),
            "weak" => builder
                .integer(Attribute::MS_MPPE_ENCRYPTION_POLICY, 2)
                .integer(Attribute::MS_MPPE_ENCRYPTION_TYPES, 2),
            "brief" => builder.integer(Attribute::SESSION_TIMEOUT, 1),
            "idle" => builder.integer(Attribute::IDLE_TIMEOUT, 1),
            _ => builder,
        };
        builder.finish().ok()
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A turnpike, its RADIUS server, and clients.
struct Isp {
    rig: Rig,
    server: Arc<Server>,
    calls: u16,
}

impl Isp {
    async fn open(order: &[Backend], mppe: Policy, require_keys: bool) -> Self {
        let server = Arc::new(Server::default());
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let serving = server.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let request = Packet::parse(&buffer[..length]).unwrap();
                if let Some(answer) = serving.answer(&request) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let secret = radius::Secret::new(SECRET).unwrap();
        let settings = ServerSettings {
            port,
            timeout: Duration::from_millis(300),
            tries: 2,
            ..ServerSettings::new(Ipv4Addr::LOCALHOST.into(), secret)
        };
        let mut users = Users::default();
        users.add(Account::new(
            "local",
            Secret::new("local password").unwrap(),
        ));
        users.add(Account::new("silent", Secret::new(PASSWORD).unwrap()));
        let methods = [
            AuthProtocol::MsChapV2,
            AuthProtocol::MsChapV1,
            AuthProtocol::ChapMd5,
            AuthProtocol::Pap,
        ];
        let admission = Admission::new(256, Duration::ZERO);
        let rig = Rig::changed(
            LIMITS,
            100,
            Duration::from_secs(30),
            RingSizes::default(),
            users.into(),
            SameUser::Allow,
            admission,
            |shared| {
                let mut own = Settings::clone(&shared.settings);
                own.mppe = mppe;
                own.login.methods = methods.to_vec();
                own.mppe_allowed.strengths = Strengths::ALL;
                shared.settings = own.into();
                let prefixes = ["10.20.1.0/24", "10.21.0.0/22"];
                let backend = RadiusBackend {
                    client: Client::new(&[settings], Purpose::Authentication),
                    rules: Rules {
                        mppe,
                        strengths: Strengths::ALL,
                        prefixes: prefixes.map(|prefix| prefix.parse().unwrap()).to_vec(),
                        server_address: Ipv4Addr::new(10, 20, 0, 1),
                        unknown_filter: UnknownFilter::Refuse,
                        require_keys,
                    },
                    identifier: "turnpike".to_owned(),
                    address: None,
                };
                let users = shared.users.clone();
                shared.backends = Chain::new(order.to_vec(), users, Some(backend));
            },
        )
        .await;
        Self {
            rig,
            server,
            calls: 0,
        }
    }

    async fn radius(mppe: Policy) -> Self {
        Self::open(&[Backend::Radius], mppe, false).await
    }

    async fn dial(&mut self, config: ClientLink) -> rig::Client {
        self.calls += 1;
        self.rig.dial_as(CLIENT, self.calls, config).await
    }

    /// Dials, and answers with the first thing that is an outcome.
    async fn outcome(&mut self, config: ClientLink) -> Saw {
        let mut client = self.dial(config).await;
        let outcome = |saw: &Saw| matches!(saw, Saw::Up(_) | Saw::LinkOver(_) | Saw::Disconnected);
        client.until(outcome).await
    }

    /// The error number that the client hears.
    async fn code(&mut self, config: ClientLink) -> u32 {
        match self.outcome(config).await {
            Saw::LinkOver(End::AuthenticationFailed { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }

    /// A call with this cause has ended.
    async fn ended(&self, cause: &str) {
        let name = format!("ended_{cause}");
        let ended = |rig: &Rig| rig.shared.counts.by_name().contains_key(&name);
        self.rig.until(&name, ended).await;
    }
}

fn user(name: &str) -> ClientLink {
    ClientLink {
        mppe_allowed: Allowed {
            strengths: Strengths::ALL,
            ..Allowed::default()
        },
        ..ClientLink::new(name.as_bytes(), Password::new(PASSWORD))
    }
}

fn by(method: AuthProtocol, name: &str, mppe: Policy) -> ClientLink {
    ClientLink {
        methods: vec![method],
        mppe,
        ..user(name)
    }
}

#[tokio::test]
async fn every_method_logs_in_and_keys_are_those_of_the_server() {
    let mut isp = Isp::radius(Policy::Prefer).await;
    for (method, mppe) in [
        (AuthProtocol::MsChapV2, Policy::Require),
        (AuthProtocol::MsChapV1, Policy::Require),
        (AuthProtocol::ChapMd5, Policy::Deny),
        (AuthProtocol::Pap, Policy::Deny),
    ] {
        let saw = isp.outcome(by(method, "alice", mppe)).await;
        assert!(matches!(saw, Saw::Up(_)), "{method}: {saw:?}");
        let wrong = ClientLink {
            secret: Password::new("wrong").into(),
            ..by(method, "alice", mppe)
        };
        assert_eq!(isp.code(wrong).await, 691, "{method}");
    }
    assert_eq!(isp.server.requests(), 8, "each login is asked for once");
    let last = isp.server.last.lock().unwrap().join("\n");
    for expected in [
        "User-Name=\"alice\"",
        "User-Password=(16 octets, hidden)",
        "NAS-IP-Address=127.0.0.1",
        "NAS-Identifier=\"turnpike\"",
        "NAS-Port-Type=5",
        "Service-Type=2",
        "Framed-Protocol=1",
        "Calling-Station-Id=\"127.0.0.2\"",
        "Called-Station-Id=\"127.0.0.1\"",
        "Tunnel-Type=1",
    ] {
        assert!(last.contains(expected), "{expected} in\n{last}");
    }
    assert!(last.starts_with("Message-Authenticator="), "{last}");
}

#[tokio::test]
async fn each_refusal_has_its_number_and_its_cause() {
    let mut isp = Isp::radius(Policy::Require).await;
    for (name, code, cause) in [
        ("disabled", 647, "account_disabled"),
        ("filtered", 812, "unknown_filter"),
        ("telnet", 812, "unknown_service_type"),
        ("unheardof", 812, "unknown_service_type"),
        ("keyless", 742, "radius_keys_missing"),
        ("garbled", 742, "radius_keys_wrong"),
        ("proofless", 930, "radius_proof_missing"),
        ("silent", 930, "radius_silent"),
        ("othersecret", 930, "radius_wrong_secret"),
        ("unsigned", 930, "radius_unsigned"),
    ] {
        assert_eq!(isp.code(user(name)).await, code, "{name}");
        isp.ended(cause).await;
    }
    let saw = isp.outcome(user("elsewhere")).await;
    assert!(!matches!(saw, Saw::Up(_)), "{saw:?}");
    isp.ended("address_elsewhere").await;
    assert_eq!(isp.rig.shared.counts.up.get(), 0);
}

#[tokio::test]
async fn keys_are_needed_where_encryption_is() {
    // Not required: up without.
    let mut isp = Isp::radius(Policy::Prefer).await;
    let saw = isp
        .outcome(by(AuthProtocol::MsChapV2, "keyless", Policy::Allow))
        .await;
    assert!(matches!(saw, Saw::Up(_)), "{saw:?}");
    // Garbled ones are refused even so.
    let garbled = by(AuthProtocol::MsChapV2, "garbled", Policy::Allow);
    assert_eq!(isp.code(garbled).await, 742);
    // The server may require what we only prefer.
    let clear = by(AuthProtocol::MsChapV2, "alice", Policy::Deny);
    assert!(matches!(isp.outcome(clear).await, Saw::Up(_)));
    let clear = by(AuthProtocol::MsChapV2, "secretive", Policy::Deny);
    let saw = isp.outcome(clear).await;
    assert!(!matches!(saw, Saw::Up(_)), "{saw:?}");
    isp.ended("encryption_refused").await;
    // And a method without keys cannot give what it requires.
    let saw = isp
        .outcome(by(AuthProtocol::Pap, "secretive", Policy::Deny))
        .await;
    assert!(!matches!(saw, Saw::Up(_)), "{saw:?}");
    isp.ended("no_keys").await;
    // Only the lengths that it names.
    let strong = ClientLink {
        mppe_allowed: Allowed {
            strengths: Strengths::STRONG,
            ..Allowed::default()
        },
        ..user("weak")
    };
    assert!(!matches!(isp.outcome(strong).await, Saw::Up(_)));
    let weak = ClientLink {
        mppe_allowed: Allowed {
            strengths: Strengths::NONE.with(Strength::Bits40),
            ..Allowed::default()
        },
        ..user("weak")
    };
    assert!(matches!(isp.outcome(weak).await, Saw::Up(_)));

    // The strict mode refuses what could go in clear.
    let mut strict = Isp::open(&[Backend::Radius], Policy::Prefer, true).await;
    let keyless = by(AuthProtocol::MsChapV2, "keyless", Policy::Allow);
    assert_eq!(strict.code(keyless).await, 742);
}

#[tokio::test]
async fn the_server_says_which_address_and_for_how_long() {
    let mut isp = Isp::radius(Policy::Require).await;
    let framed = Ipv4Addr::new(10, 20, 1, 77);
    let mut first = isp.dial(user("framed")).await;
    assert_eq!(first.next().await, Saw::Up(framed));
    // It is one call's; the newer one gets it.
    assert_eq!(isp.outcome(user("framed")).await, Saw::Up(framed));
    let saw = isp.outcome(user("ours")).await;
    assert!(
        matches!(saw, Saw::Up(address) if address != framed),
        "{saw:?}"
    );
    let pooled = Ipv4Addr::new(10, 22, 0, 1);
    assert_eq!(isp.outcome(user("pooled")).await, Saw::Up(pooled));
    let saw = isp.outcome(user("lost")).await;
    assert!(!matches!(saw, Saw::Up(_)), "{saw:?}");
    isp.ended("pool_unknown").await;
    for (name, cause) in [("brief", "session_timeout"), ("idle", "idle_timeout")] {
        let mut client = isp.dial(user(name)).await;
        client.until(|saw| matches!(saw, Saw::Up(_))).await;
        client.until(|saw| matches!(saw, Saw::LinkOver(_))).await;
        isp.ended(cause).await;
    }
}

#[tokio::test]
async fn the_next_back_end_is_asked_only_when_nobody_has_said_no() {
    use Backend::{Local, Radius};
    let with = |name: &str, password: &str| ClientLink {
        secret: Password::new(password).into(),
        ..user(name)
    };
    let mut isp = Isp::open(&[Local, Radius], Policy::Require, false).await;
    assert!(matches!(
        isp.outcome(with("local", "local password")).await,
        Saw::Up(_)
    ));
    // The server would let this one in.
    assert_eq!(isp.code(with("local", PASSWORD)).await, 691);
    assert_eq!(isp.server.requests(), 0);
    assert!(matches!(
        isp.outcome(with("alice", PASSWORD)).await,
        Saw::Up(_)
    ));
    assert_eq!(isp.server.requests(), 1);

    let mut isp = Isp::open(&[Radius, Local], Policy::Require, false).await;
    // Refused by the server: the file would let this one in.
    assert_eq!(isp.code(with("local", "local password")).await, 691);
    // The server says nothing: the file knows the user.
    assert!(matches!(
        isp.outcome(with("silent", PASSWORD)).await,
        Saw::Up(_)
    ));
}

#[tokio::test]
async fn a_login_that_waits_holds_nobody_and_leaves_nothing() {
    let mut isp = Isp::radius(Policy::Require).await;
    let mut waits = isp.dial(user("silent")).await;
    let server = isp.server.clone();
    tokio::select! {
        saw = waits.until(|_| false) => panic!("{saw:?}"),
        () = async { while server.requests() == 0 { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    assert!(matches!(isp.outcome(user("alice")).await, Saw::Up(_)));
    // It hangs up before anybody has answered.
    drop(isp.rig.forget(waits));
    isp.rig.stopping.send_replace(true);
    isp.rig.until("nothing is held", Rig::is_empty).await;
}
