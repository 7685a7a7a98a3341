//! Users, in the configuration and in the files that it names.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::aaa::{Addresses, Home};

#[test]
fn users_are_told_apart() {
    let user = |name: &str, address: &str| {
        format!("[[user]]\nname = \"{name}\"\npassword = \"x\"\naddress = \"{address}\"\n")
    };
    let twice = format!("{SMALL}{}{}", user("a", "10.9.0.1"), user("a", "10.9.0.2"));
    assert_eq!(
        faults(&twice),
        ["t.toml:12: user \"a\" is there twice; leave one of them out"]
    );
    let same = format!("{SMALL}{}{}", user("a", "10.9.0.1"), user("b", "10.9.0.1"));
    assert!(faults(&same)[0].contains("the address of user \"a\""));
    let server = format!("{SMALL}{}", user("a", "10.20.0.1"));
    assert!(faults(&server)[0].contains("server_address"));
    // In the pool is fine: nobody else gets it.
    config(&format!("{SMALL}{}", user("a", "10.20.0.77")));
    assert!(
        faults(&format!("{SMALL}[user]\nname = \"a\"\n"))[0]
            .contains("start each one with [[user]]")
    );
}

#[test]
fn no_fault_shows_a_password() {
    let text = format!(
        "{SMALL}[[user]]\nname = \"a\"\npassword = [\"s3cret\"]\n[[user]]\nname = \"b\"\npassword = \"s3cret\n"
    );
    let faults = faults(&text);
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(!faults.join("").contains("s3cret"), "{faults:#?}");
    let long = "x".repeat(257);
    assert!(faults_of_password(&long).contains("longer than 256"));
    assert!(faults_of_password("").contains("is empty"));
}

fn faults_of_password(password: &str) -> String {
    faults(&format!(
        "{SMALL}[[user]]\nname = \"a\"\npassword = \"{password}\"\n"
    ))
    .join("\n")
}

#[test]
fn accounts_have_states_and_either_a_password_or_its_hash() {
    let user = |lines: &str| faults(&format!("{SMALL}[[user]]\nname = \"a\"\n{lines}\n"));
    let good = "nt_hash = \"8846F7EAEE8FB117AD06BDD830B7586C\"\ndisabled = false\ndial_in = true\n\
                hours = [\"Mon-Fri 08:00-18:00\", \"daily 22:00-06:00\"]";
    assert_eq!(user(good), [""; 0]);
    for (line, told) in [
        (
            "",
            "t.toml:7: `password` in [[user]] is missing; write password = \"...\", 1 to 256 characters",
        ),
        (
            "nt_hash = \"8846\"",
            "t.toml:9: `nt_hash` in [[user]] is no NT hash; write the 32 hexadecimal digits",
        ),
        (
            "nt_hash = \"8846f7eaee8fb117ad06bdd830b7586g\"",
            "t.toml:9: `nt_hash` in [[user]] is no NT hash",
        ),
        (
            "nt_hash = 3",
            "t.toml:9: `nt_hash` in [[user]] is no NT hash",
        ),
        (
            "password = \"x\"\nnt_hash = \"x\"",
            "t.toml:10: `nt_hash` in [[user]] stands beside a password; leave one of them out",
        ),
        (
            "password = \"x\"\ndisabled = \"yes\"",
            "t.toml:10: `disabled` in [[user]] is a string; write true",
        ),
        (
            "password = \"x\"\ndial_in = 1",
            "t.toml:10: `dial_in` in [[user]] is a number; write false",
        ),
        (
            "password = \"x\"\nhours = [\"Mon 8-18\"]",
            "t.toml:10: `hours` in [[user]] cannot be \"Mon 8-18\"; days and times",
        ),
        (
            "password = \"x\"\nhours = []",
            "t.toml:10: `hours` in [[user]] has none; leave the key out",
        ),
        (
            "password = \"x\"\npassword_expires = 2026-12-31",
            "t.toml:10: `password_expires` is for users who can change their password, which is never written here; move the user to the file of `users_file`",
        ),
    ] {
        let told_of = user(line);
        assert_eq!(told_of.len(), 1, "{line}: {told_of:#?}");
        assert!(told_of[0].starts_with(told), "{told_of:#?}");
        assert!(!told_of[0].contains("8846"), "{told_of:#?}");
    }
}

#[test]
fn names_and_new_passwords_have_rules() {
    for (line, told) in [
        (
            "domain = \"drop\"",
            "`domain` in [auth.names] cannot be \"drop\"; write one of \"strip\", \"keep\"",
        ),
        (
            "realm = true",
            "`realm` in [auth.names] is true or false, not a string",
        ),
        (
            "case = \"upper\"",
            "`case` in [auth.names] cannot be \"upper\"; write one of \"keep\", \"lower\"",
        ),
        (
            "encoding = \"utf-16le\"",
            "`encoding` in [auth.names] cannot be \"utf-16le\"; write an encoding by its usual name",
        ),
        (
            "second_encoding = \"ansi\"",
            "`second_encoding` in [auth.names] cannot be \"ansi\"",
        ),
        (
            "secnd_encoding = \"cp1251\"",
            "unknown key `secnd_encoding` in [auth.names]; did you mean `second_encoding`?",
        ),
    ] {
        let told_of = fault("auth.names", line);
        assert!(
            told_of.starts_with(&format!("t.toml:8: {told}")),
            "{told_of}"
        );
    }
    for (line, told) in [
        (
            "min_length = 0",
            "`min_length` in [auth.passwords] is 0, outside 1 to 128",
        ),
        ("lifetime = \"3h\"", "`lifetime` in [auth.passwords] is 3h"),
        (
            "lifetime = 90",
            "`lifetime` in [auth.passwords] is a number",
        ),
    ] {
        let told_of = fault("auth.passwords", line);
        assert!(
            told_of.starts_with(&format!("t.toml:8: {told}")),
            "{told_of}"
        );
    }
    assert!(
        fault("auth", "retry = 3")
            .starts_with("t.toml:8: `retry` in [auth] is a number; write true or false")
    );
    // The same one twice is one.
    let names = config(&with("auth.names", "second_encoding = \"UTF-8\""))
        .auth
        .names;
    assert_eq!(names.second_encoding, None);
    // Users whose names are told apart by capitals only are one user where capitals do not matter.
    let users =
        "[[user]]\nname = \"A\"\npassword = \"x\"\n[[user]]\nname = \"a\"\npassword = \"y\"\n";
    assert_eq!(config(&format!("{SMALL}{users}")).users.len(), 2);
    assert_eq!(
        faults(&(with("auth.names", "case = \"lower\"") + users)),
        ["t.toml:13: user \"a\" is there twice; leave one of them out"]
    );
}

#[test]
fn a_file_of_users_is_read_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let toml = directory.path().join("turnpike.toml");
    let users = directory.path().join("users.toml");
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let faults = || load(&toml).err().unwrap().to_string();
    write(
        &toml,
        &(with("auth", "users_file = \"users.toml\"")
            + "[[user]]\nname = \"alice\"\npassword = \"x\"\naddress = \"10.9.0.9\"\n"),
    );
    assert!(faults().contains("users.toml: cannot be read: No such file"));
    write(&users, include_str!("../../../../examples/users.toml"));
    let Loaded { config, warnings } = load(&toml).ok().unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.users.find(b"alice").unwrap().home, Home::ReadOnly);
    let carol = config.users.find(b"carol").unwrap();
    assert_eq!(carol.home, Home::UsersFile);
    assert!(matches!(&carol.addresses, Addresses::Fixed(_)));
    assert_eq!(config.auth.users_file, Some(users.clone()));
    assert!(
        config.network.prefixes.len() > 8,
        "{:?}",
        config.network.prefixes
    );

    // All faults of both files, each with its file and line.
    write(
        &toml,
        &(with(
            "auth",
            "users_file = \"users.toml\"\nchap_secrets = \"chap-secrets\"",
        ) + "[[user]]\nname = \"alice\"\npassword = \"x\"\naddress = \"10.9.0.9\"\n"),
    );
    write(&directory.path().join("chap-secrets"), "alice\n");
    write(
        &users,
        "[[user]]\nname = \"a\"\npassword = \"s3cret\"\naddress = \"10.9.0.9\"\n\
         [[user]]\nname = \"b\"\npassword = \"s3cret\"\naddress = \"10.20.0.1\"\n\
         [[user]]\nname = \"a\"\npassword = \"s3cret\"\npassword_expires = \"soon\"\n\
         [[user]]\nname = \"c\"\npassword = \"s3cret\"\npassword_expires = 2026-01-01T00:00:00\n\
         [auth]\n",
    );
    let told = faults();
    let lines: Vec<_> = told
        .lines()
        .map(|line| line.rsplit_once('/').unwrap().1)
        .collect();
    assert_eq!(lines.len(), 7, "{lines:#?}");
    for (line, start) in lines.iter().zip([
        "users.toml:4: `address` in [[user]] is 10.9.0.9, the address of user \"alice\"",
        "users.toml:8: `address` in [[user]] is 10.20.0.1, server_address",
        "users.toml:10: user \"a\" is there twice",
        "users.toml:12: `password_expires` in [[user]] is a string; write the first day",
        "users.toml:16: `password_expires` in [[user]] is a date; write",
        "users.toml:17: unknown section `auth`; known here: user",
        "chap-secrets:1: ",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
    assert!(!told.contains("s3cret"));

    std::fs::remove_file(directory.path().join("chap-secrets")).unwrap();
    write(
        &toml,
        &(with("auth", "users_file = \"users.toml\"")
            + "[[user]]\nname = \"a\"\npassword = \"x\"\n"),
    );
    write(&users, "[[user]]\nname = \"a\"\npassword = \"y\"\n");
    let warnings = load(&toml).ok().unwrap().warnings;
    assert!(warnings[0].to_string().ends_with(
        "users.toml:2: \"a\" has an account already, which holds; leave one of them out"
    ));
    std::fs::write(&users, b"# caf\xe9\n").unwrap();
    assert!(faults().contains("users.toml:1: the file is not UTF-8"));
}

#[test]
fn files_are_read_together() {
    let directory = tempfile::tempdir().unwrap();
    let toml = directory.path().join("turnpike.toml");
    let secrets = directory.path().join("chap-secrets");
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let warnings = || -> Vec<String> {
        match load(&toml) {
            Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect(),
            Err(faults) => panic!("{faults}"),
        }
    };
    let faults = || load(&toml).err().unwrap().to_string();
    assert!(faults().contains("cannot be read: No such file"));

    std::fs::write(&toml, SMALL).unwrap();
    mode(&toml, 0o644);
    assert_eq!(warnings().len(), 1);
    assert!(warnings()[0].contains("there are no users"));

    std::fs::write(
        &toml,
        with("auth", "chap_secrets = \"chap-secrets\"")
            + "[[user]]\nname = \"alice\"\npassword = \"x\"\naddress = \"10.9.0.9\"\n",
    )
    .unwrap();
    assert!(faults().ends_with("chap-secrets: cannot be read: No such file or directory (os error 2); name a file that exists and that this user may read"));

    std::fs::write(&secrets, "alice * other *\nbob other x *\ncarol turnpike x 10.9.0.8\ncarol * y *\ndave * x 10.9.0.9\n").unwrap();
    mode(&secrets, 0o604);
    let told = warnings();
    assert_eq!(told.len(), 5, "{told:#?}");
    assert!(told[0].contains("turnpike.toml: holds passwords and every user"));
    assert!(told[1].contains("chap-secrets: holds passwords and every user"));
    assert!(told[2].contains("chap-secrets:1: \"alice\" has an account already"));
    assert!(
        told[3].contains("chap-secrets:4: \"carol\" has an account already"),
        "{told:#?}"
    );
    assert!(
        told[4].contains("chap-secrets:5: 10.9.0.9 is also"),
        "{told:#?}"
    );
    mode(&toml, 0o600);
    mode(&secrets, 0o640);
    assert_eq!(warnings().len(), 3);
    let config = load(&toml).ok().unwrap().config;
    assert_eq!(config.users.len(), 3);
    let prefixes: Vec<_> = config
        .network
        .prefixes
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(prefixes.contains(&"10.9.0.8/31".to_owned()), "{prefixes:?}");
    assert!(
        config
            .users
            .fixed()
            .all(|range| Addresses::Fixed(vec![range]) != Addresses::Pool)
    );

    std::fs::write(&secrets, "alice\nbob * \"\" *\ncarol * x 10.20.0.1\n").unwrap();
    let told = faults();
    assert!(
        told.contains("chap-secrets:1: ") && told.contains("chap-secrets:2: "),
        "{told}"
    );
    std::fs::write(&secrets, "carol * x 10.20.0.1\n").unwrap();
    assert!(faults().contains("chap-secrets:1: 10.20.0.1 holds server_address"));
    std::fs::write(&toml, b"# caf\xe9\n").unwrap();
    assert!(faults().contains("turnpike.toml:1: the file is not UTF-8"));
}
