//! Routing by source address: policy rules, and the tables they lead to.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::route::{RouteAttribute, RouteHeader};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::{Route, message};
use super::{Error, Make, Netlink};

/// "What comes from this address is routed by that table."
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SourceRule {
    /// The address.
    pub source: Ipv4Addr,
    /// Number of the table.
    pub table: u32,
    /// Rules with lower numbers are asked first; the main table's is 32766.
    pub priority: u32,
}

impl Netlink {
    /// Adds a rule.
    ///
    /// # Errors
    /// When Linux refuses; [`Error::exists`] when there is the same rule.
    pub fn rule_add(&mut self, rule: &SourceRule) -> Result<(), Error> {
        self.make(
            RouteNetlinkMessage::NewRule(rule_message(rule)),
            Make::Exclusive,
        )
        .map_err(|e| Error::new(format!("add a routing rule for {}", rule.source), e))
    }

    /// Takes a rule out.
    ///
    /// # Errors
    /// When Linux refuses; [`Error::missing`] when there is no such rule.
    pub fn rule_delete(&mut self, rule: &SourceRule) -> Result<(), Error> {
        self.change(RouteNetlinkMessage::DelRule(rule_message(rule)), 0)
            .map_err(|e| Error::new(format!("delete the routing rule for {}", rule.source), e))
    }

    /// All rules that look at a single source address.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn rules(&mut self) -> Result<Vec<SourceRule>, Error> {
        let mut request = RuleMessage::default();
        request.header.family = AddressFamily::Inet;
        let answers = self
            .dump(RouteNetlinkMessage::GetRule(request))
            .map_err(|e| Error::new("list routing rules", e))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => read(&message),
                _ => None,
            })
            .collect())
    }

    /// Adds a route to another table than the main one, or puts it in the place of one with the same destination.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn route_add_to(&mut self, table: u32, route: &Route) -> Result<(), Error> {
        let mut message = message(route);
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.attributes.push(RouteAttribute::Table(table));
        self.make(RouteNetlinkMessage::NewRoute(message), Make::Replace)
            .map_err(|e| {
                Error::new(
                    format!("add a route to {} to table {table}", route.destination),
                    e,
                )
            })
    }
}

fn rule_message(rule: &SourceRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.src_len = 32;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(IpAddr::V4(rule.source)),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
    ];
    message
}

fn read(message: &RuleMessage) -> Option<SourceRule> {
    if message.header.src_len != 32 || message.header.dst_len != 0 {
        return None;
    }
    let mut source = None;
    let mut table = u32::from(message.header.table);
    let mut priority = 0;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(IpAddr::V4(address)) => source = Some(*address),
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Priority(number) => priority = *number,
            _ => {}
        }
    }
    Some(SourceRule {
        source: source?,
        table,
        priority,
    })
}
