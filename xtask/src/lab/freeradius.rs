//! FreeRADIUS, as Debian has it, in a namespace of its own beside the concentrator.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::needs;
use super::netns::Namespace;
use super::process::Process;
use super::road::Road;
use super::until;

/// Its address, on a veth pair to the concentrator.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);

/// The concentrator's end of the pair.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

/// The port for authentication; that for accounting is the next one.
pub const PORT: u16 = 1812;

/// Where Debian puts its modules.
const LIBRARIES: &str = "/usr/lib/freeradius";

/// How long it may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(20);

/// What it shall be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it shares with the concentrator.
    pub secret: String,
    /// Its `users` file.
    pub users: String,
    /// Whether its answers to logins have a Message-Authenticator, which Debian 12's adds only when it is told to.
    pub signed: bool,
    /// Whether it gives keys for MPPE.
    pub keys: bool,
}

/// A running FreeRADIUS. Dropped: killed.
#[derive(Debug)]
pub struct FreeRadius {
    process: Process,
    directory: PathBuf,
    /// Where it runs.
    pub namespace: Namespace,
}

impl FreeRadius {
    /// Joins a namespace for it to the concentrator of `road`, starts it there, and waits until it answers.
    pub fn start(road: &Road, plan: &Plan) -> Result<Self> {
        let namespace = road.lab.namespace("radius")?;
        namespace.veth("radius0", &road.concentrator, "radius1", 1)?;
        namespace.ip(&format!("addr add {ADDRESS}/24 dev radius0"))?;
        road.concentrator
            .ip(&format!("addr add {CLIENT}/24 dev radius1"))?;
        let directory = road.lab.directory().join("freeradius");
        write(&directory, plan)?;
        let process = namespace.start("freeradius", &command(&namespace, &directory)?)?;
        let mut server = Self {
            process,
            directory,
            namespace,
        };
        server.wait(&plan.secret)?;
        Ok(server)
    }

    fn wait(&mut self, secret: &str) -> Result<()> {
        until("FreeRADIUS answers", PATIENCE, || {
            if self.process.ended()?.is_some() {
                bail!("FreeRADIUS ended: {}{}", self.process.tail(), self.log());
            }
            let line = format!("{ADDRESS}:{PORT}");
            let script = format!(
                "echo 'Message-Authenticator = 0x00' | radclient -q -t 1 -r 1 {line} status {secret}"
            );
            let mut probe = self.namespace.command("sh");
            let output = probe.args(["-c", &script]).output()?;
            Ok(output.status.success().then_some(()))
        })
        .with_context(|| self.log())
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}

fn command(namespace: &Namespace, directory: &Path) -> Result<Command> {
    let program = needs::find("freeradius").context("package freeradius is not installed")?;
    let mut command = namespace.command(program);
    command.arg("-f").arg("-d").arg(directory);
    Ok(command)
}

/// Writes all of its configuration; what is installed is not looked at.
fn write(directory: &Path, plan: &Plan) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let yes_or_no = |yes| if yes { "yes" } else { "no" };
    let here = directory.display();
    let keys = yes_or_no(plan.keys);
    let signature = match plan.signed {
        true => "update reply {\n\t\t\t&Message-Authenticator := 0x00\n\t\t}",
        false => "",
    };
    let mut text = String::new();
    write!(
        text,
        "name = freeradius
prefix = /usr
localstatedir = {here}
sysconfdir = {here}
logdir = {here}
run_dir = {here}
libdir = {LIBRARIES}
pidfile = {here}/pid
max_request_time = 10
cleanup_delay = 1
hostname_lookups = no
log {{
	destination = files
	file = {here}/log
	auth = yes
}}
security {{
	max_attributes = 200
	reject_delay = 0
	status_server = yes
}}
thread pool {{
	start_servers = 1
	max_servers = 4
	min_spare_servers = 1
	max_spare_servers = 2
}}
client concentrator {{
	ipaddr = 0.0.0.0/0
	secret = {secret}
}}
modules {{
	files {{
		usersfile = {here}/users
	}}
	mschap {{
		use_mppe = {keys}
		require_encryption = {keys}
		require_strong = {keys}
		with_ntdomain_hack = yes
	}}
	chap {{
	}}
	pap {{
	}}
	detail {{
		filename = {here}/accounting
	}}
}}
server default {{
	listen {{
		type = auth
		ipaddr = {ADDRESS}
		port = {PORT}
	}}
	listen {{
		type = acct
		ipaddr = {ADDRESS}
		port = {accounting}
	}}
	authorize {{
		chap
		mschap
		files
		pap
	}}
	authenticate {{
		Auth-Type PAP {{
			pap
		}}
		Auth-Type CHAP {{
			chap
		}}
		Auth-Type MS-CHAP {{
			mschap
		}}
	}}
	accounting {{
		detail
	}}
	post-auth {{
		{signature}
		Post-Auth-Type REJECT {{
			{signature}
		}}
	}}
}}
",
        secret = plan.secret,
        accounting = PORT + 1,
    )?;
    for (name, text) in [("radiusd.conf", &text), ("users", &plan.users)] {
        let path = directory.join(name);
        std::fs::write(&path, text)?;
        // It refuses to start when others may read its secrets.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}
