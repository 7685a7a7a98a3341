use turnpike_protocol::ppp::AuthProtocol;

use super::*;

fn login(lines: &str) -> Login {
    config(&with("auth", lines)).auth.login
}

#[test]
fn methods_are_kept_in_their_order() {
    assert_eq!(Login::default().methods, [AuthProtocol::MsChapV2]);
    let all = login("methods = [\"ms-chap-v2\", \"ms-chap-v1\", \"chap-md5\", \"pap\"]");
    let expected = [
        AuthProtocol::MsChapV2,
        AuthProtocol::MsChapV1,
        AuthProtocol::ChapMd5,
        AuthProtocol::Pap,
    ];
    assert_eq!(all.methods, expected);
    assert_eq!(all.rechallenge, None);
    let some =
        login("mppe = \"prefer\"\nmethods = [\"chap-md5\", \"ms-chap-v2\"]\nrechallenge = \"10m\"");
    let expected = [AuthProtocol::ChapMd5, AuthProtocol::MsChapV2];
    assert_eq!(some.methods, expected);
    assert_eq!(some.rechallenge, Some(Duration::from_secs(600)));
    for mppe in ["deny", "allow", "prefer"] {
        let plain = login(&format!("mppe = \"{mppe}\"\nmethods = [\"pap\"]"));
        assert_eq!(plain.methods, [AuthProtocol::Pap], "{mppe}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (lines, expected) in [
        (
            "methods = []",
            "t.toml:8: `methods` in [auth] is empty: nobody could log in; write methods = [\"ms-chap-v2\"], or leave the key out",
        ),
        (
            "methods = [\"chap-md5\", \"pap\"]",
            "t.toml:8: `methods` in [auth] has none that yields keys, and `mppe` requires encryption: nobody could log in; add \"ms-chap-v2\", or write mppe = \"prefer\"",
        ),
        (
            "mppe = \"require\"\nmethods = [\"pap\"]",
            "t.toml:9: `methods` in [auth] has none that yields keys, and `mppe` requires encryption: nobody could log in; add \"ms-chap-v2\", or write mppe = \"prefer\"",
        ),
        (
            "methods = [\"ms-chap-v2\", \"ms-chap-v2\"]",
            "t.toml:8: \"ms-chap-v2\" stands in `methods` in [auth] twice; write it once",
        ),
        (
            "methods = [\"eap\"]",
            "t.toml:8: `methods` in [auth] cannot be \"eap\"; \"ms-chap-v2\", \"ms-chap-v1\", \"chap-md5\" or \"pap\"",
        ),
        (
            "methods = \"pap\"",
            "t.toml:8: `methods` in [auth] is a string, not a list; write it in brackets: methods = [\"ms-chap-v2\", \"ms-chap-v1\", \"chap-md5\" or \"pap\"]",
        ),
        (
            "mppe = \"deny\"\nmethods = [\"pap\"]\nrechallenge = \"1h\"",
            "t.toml:10: `rechallenge` in [auth] is for CHAP only: PAP has no challenge; take it out, or add \"ms-chap-v2\" to `methods`",
        ),
        (
            "rechallenge = \"1s\"",
            "t.toml:8: `rechallenge` in [auth] is 1s; write something from 1m to 1day, such as \"1h\"",
        ),
    ] {
        let told = fault("auth", lines);
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn users_whom_a_method_keeps_out_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let toml = directory.path().join("turnpike.toml");
    let warnings = |auth: &str, hashed: &[&str]| -> Vec<String> {
        let hash = "nt_hash = \"8846F7EAEE8FB117AD06BDD830B7586C\"";
        let user = |name: &str, secret: &str| format!("[[user]]\nname = \"{name}\"\n{secret}\n");
        let mut text = with("auth", auth) + &user("alice", "password = \"x\"");
        for name in hashed {
            text += &user(name, hash);
        }
        std::fs::write(&toml, text).unwrap();
        std::fs::set_permissions(&toml, std::fs::Permissions::from_mode(0o600)).unwrap();
        let warnings = load(&toml).ok().unwrap().warnings;
        warnings.iter().map(ToString::to_string).collect()
    };
    let asked = "mppe = \"prefer\"\nmethods = [\"ms-chap-v2\", \"chap-md5\", \"pap\"]";
    for (hashed, who) in [
        (&["bob"][..], "\"bob\""),
        (&["dave", "bob"], "\"bob\" and \"dave\""),
        (&["dave", "carol", "bob"], "\"bob\", \"carol\" and \"dave\""),
        (&["e", "d", "c", "b"], "\"b\", \"c\", \"d\" and 1 other"),
        (
            &["f", "e", "d", "c", "b"],
            "\"b\", \"c\", \"d\" and 2 others",
        ),
    ] {
        let expected = format!(
            "{}: `methods` in [auth] has \"chap-md5\", by which {who} can never log in: only the NT hash is stored; \
             write `password` in place of `nt_hash` for them, or take \"chap-md5\" out",
            toml.display()
        );
        assert_eq!(warnings(asked, hashed), [expected]);
    }
    // Nobody is kept out; all other methods do with the hash; and without keys CHAP-MD5 is passed over.
    assert_eq!(warnings(asked, &[]), [""; 0]);
    for auth in [
        "mppe = \"prefer\"\nmethods = [\"ms-chap-v2\", \"ms-chap-v1\", \"pap\"]",
        "methods = [\"ms-chap-v2\", \"chap-md5\"]",
        "",
    ] {
        assert_eq!(warnings(auth, &["bob"]), [""; 0], "{auth}");
    }
}
