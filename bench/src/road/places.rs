//! The three places of a run: where packets of clients come from and go to, the device under test, and the network.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use turnpike_dataplane::netdev::{Link, Netlink};
use turnpike_dataplane::thread::pin;

/// Another network namespace and an interface in it, as `NAMESPACE/INTERFACE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    /// As `ip netns` lists it.
    pub namespace: String,
    /// The interface.
    pub interface: String,
}

impl FromStr for Elsewhere {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, interface))
                if !namespace.is_empty() && !interface.is_empty() && !interface.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    interface: interface.to_owned(),
                })
            }
            _ => Err("write NAMESPACE/INTERFACE".to_owned()),
        }
    }
}

impl std::fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.interface)
    }
}

/// Such a place, found.
pub(super) struct Place {
    namespace: File,
    pub(super) interface: String,
    pub(super) link: Link,
}

impl Place {
    pub(super) fn open(elsewhere: &Elsewhere) -> anyhow::Result<Self> {
        let path = Path::new("/run/netns").join(&elsewhere.namespace);
        let namespace =
            File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let interface = elsewhere.interface.clone();
        let link = inside(&namespace, None, || find(&interface))??;
        Ok(Self {
            namespace,
            interface,
            link,
        })
    }

    /// Runs `work` on a thread that lives there, and on a processor of its own if that is wanted.
    pub(super) fn enter<T: Send>(
        &self,
        cpu: Option<usize>,
        work: impl FnOnce() -> T + Send,
    ) -> anyhow::Result<T> {
        inside(&self.namespace, cpu, work)
    }
}

/// An interface of the thread's namespace.
pub(super) fn find(interface: &str) -> anyhow::Result<Link> {
    Netlink::open()?
        .link(interface)?
        .with_context(|| format!("there is no network interface {interface}"))
}

fn inside<T: Send>(
    namespace: &File,
    cpu: Option<usize>,
    work: impl FnOnce() -> T + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> anyhow::Result<T> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter a network namespace (this needs root)")?;
            if let Some(cpu) = cpu {
                anyhow::ensure!(pin(cpu), "this process may not use processor {cpu}");
            }
            Ok(work())
        });
        thread
            .join()
            .map_err(|_| anyhow!("a thread in another namespace panicked"))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_namespaces_with_interfaces() {
        let place: Elsewhere = "client/c0".parse().unwrap();
        assert_eq!((&*place.namespace, &*place.interface), ("client", "c0"));
        assert_eq!(place.to_string(), "client/c0");
        for wrong in ["c0", "/c0", "client/", "a/b/c"] {
            assert!(wrong.parse::<Elsewhere>().is_err(), "{wrong}");
        }
    }
}
