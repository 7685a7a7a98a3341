//! How clients log in: by which methods, how often, and with what result.

use turnpike_protocol::ppp::AuthProtocol;

use super::*;

fn with(login: Login, mppe: Policy) -> Settings {
    Settings {
        login,
        mppe,
        ..settings()
    }
}

/// A world whose client has dialled, and knows its password itself.
fn dialled(settings: Settings, adjust: fn(&mut ClientLink), refusals: &[Refusal]) -> World {
    let mut world = World::new(settings);
    world.adjust = adjust;
    world.refusals = refusals.iter().cloned().collect();
    world.caller.call(CallId(0), world.now);
    world.pass(Duration::from_secs(20));
    world
}

fn count(world: &World, what: &str) -> usize {
    world.did.iter().filter(|did| *did == what).count()
}

#[test]
fn every_method_that_is_configured_lets_clients_in() {
    for method in [
        AuthProtocol::Pap,
        AuthProtocol::ChapMd5,
        AuthProtocol::MsChapV1,
        AuthProtocol::MsChapV2,
    ] {
        let login = Login {
            methods: vec![method],
            ..Login::default()
        };
        let open = |config: &mut ClientLink| {
            config.secret = Password::new(PASSWORD).into();
            config.mppe = Policy::Allow;
            config.methods = vec![
                AuthProtocol::Pap,
                AuthProtocol::ChapMd5,
                AuthProtocol::MsChapV1,
                AuthProtocol::MsChapV2,
            ];
        };
        let world = dialled(with(login.clone(), Policy::Prefer), open, &[]);
        world.position("up alice 10.20.0.9 1400");
        let encrypted = world.did.iter().any(|did| did == "secure transmit");
        assert_eq!(encrypted, method.gives_keys(), "{method}");

        // What is not configured does not.
        let world = dialled(with(login, Policy::Require), |_| {}, &[]);
        let in_ = method == AuthProtocol::MsChapV2;
        assert_eq!(world.ended.is_empty(), in_, "{method}");
        if !in_ {
            assert_eq!(world.end().cause, Cause::AuthenticationRefused);
        }
    }
}

#[test]
fn each_reason_is_told_by_its_number_and_stands_in_the_end() {
    for (cause, code) in [
        (Cause::OutsideHours, 646),
        (Cause::AccountDisabled, 647),
        (Cause::PasswordExpired, 648),
        (Cause::NotPermitted, 649),
        (Cause::AuthenticationFailed, 691),
        (Cause::PasswordUnfit, 709),
    ] {
        let world = dialled(settings(), |_| {}, &[Refusal::new(cause)]);
        world.position(&format!("login failed alice Some({code})"));
        assert_eq!(world.end().cause, cause);
        assert_eq!(cause.client_error(), Some(code));
        assert_eq!(count(&world, "authenticate"), 1, "{cause}");
        assert!(world.position("CHAP Failure") < world.position("LCP Terminate-Ack"));
    }
}

#[test]
fn another_try_is_for_those_who_were_allowed_it() {
    let two_passwords = |config: &mut ClientLink| {
        config.secret = Password::new("wrong horse").into();
        config.other_secrets = vec![Password::new(PASSWORD).into()];
    };
    let mut world = dialled(settings(), two_passwords, &[]);
    assert_eq!(world.end().cause, Cause::AuthenticationFailed);
    assert_eq!(count(&world, "authenticate"), 1);

    world = World::new(settings());
    world.adjust = two_passwords;
    world.remedy = Remedy::Retry;
    world.caller.call(CallId(0), world.now);
    world.pass(Duration::from_secs(20));
    world.position("login failed alice Some(691)");
    world.position("up alice 10.20.0.9 1400");
    assert_eq!(count(&world, "authenticate"), 2);
    assert!(world.ended.is_empty());
    // The refusal before it is forgotten.
    world.tcp = false;
    world.tunnel.hung_up(world.now);
    world.settle();
    assert_eq!(world.end().cause, Cause::ConnectionLost);
}

#[test]
fn a_challenge_in_mid_call_changes_nothing() {
    let login = Login {
        rechallenge: Some(Duration::from_secs(600)),
        ..Login::default()
    };
    let mut world = dialled(with(login, Policy::Require), |_| {}, &[]);
    world.position("up alice 10.20.0.9 1400");
    world.did.clear();
    world.pass(Duration::from_secs(3500));
    assert_eq!(count(&world, "authenticate"), 5);
    assert_eq!(count(&world, "CHAP Success"), 5);
    for never in [
        "cease",
        "release 10.20.0.9",
        "hold",
        "unroute 10.20.0.9/32",
        "secure transmit",
        "secure receive",
    ] {
        assert_eq!(count(&world, never), 0, "{never}");
    }
    assert!(world.ended.is_empty());

    // Locked out in mid-call: told, and put out.
    world
        .refusals
        .push_back(Refusal::new(Cause::AccountDisabled));
    world.pass(Duration::from_secs(700));
    assert_eq!(world.end().cause, Cause::AccountDisabled);
    assert_eq!(world.end().address, Some(ADDRESS));
    assert_eq!(world.end().user.as_deref(), Some("alice"));
}
