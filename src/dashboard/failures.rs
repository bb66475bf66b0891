//! The commonest failures, grouped by their text without the variable parts.

use std::collections::HashMap;

use postrider_transport::{DeliveryId, pattern};

use crate::{DeliverySummary, State};

/// How many groups are shown.
const SHOWN: usize = 8;

/// The length from which a part of an error is worth a search.
const SEARCHABLE: usize = 8;

/// Deliveries that failed in the same way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FailureGroup {
    /// The error of the newest of them.
    pub(super) example: String,
    /// The newest of them.
    pub(super) newest: DeliveryId,
    pub(super) count: usize,
    /// How many of them are dead letters or held.
    pub(super) given_up: usize,
    /// A part that all their errors contain, for a search. `None` if it is too short.
    pub(super) common: Option<String>,
}

/// Groups the deliveries that have an error, the largest group first.
pub(super) fn group(failed: &[DeliverySummary]) -> Vec<FailureGroup> {
    let mut groups: HashMap<String, Vec<(&DeliverySummary, &str)>> = HashMap::new();
    for delivery in failed {
        if let Some(error) = delivery.last_error.as_deref() {
            groups.entry(pattern(cause(error))).or_default().push((delivery, error));
        }
    }
    let mut groups: Vec<_> = groups.into_values().filter_map(|members| summarize(&members)).collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| b.newest.cmp(&a.newest)));
    groups.truncate(SHOWN);
    groups
}

/// The error of a reason, without why the relay gave up, so that a dead letter is in one group with the mail that waits.
fn cause(reason: &str) -> &str {
    const WHY: [&str; 4] =
        ["permanent: ", "in doubt: ", "expired: the next attempt would come too late: ", "expired: "];
    let budget = || reason.strip_prefix("budget: ")?.split_once(" attempts spent: ").map(|(_, error)| error);
    WHY.iter().find_map(|why| reason.strip_prefix(why)).or_else(budget).unwrap_or(reason)
}

fn summarize(members: &[(&DeliverySummary, &str)]) -> Option<FailureGroup> {
    let (newest, example) = members.iter().max_by_key(|(delivery, _)| delivery.id)?;
    let common = constant_part(example).filter(|part| members.iter().all(|(_, error)| error.contains(part)));
    let is_given_up = |(delivery, _): &&(&DeliverySummary, &str)| delivery.state != State::Pending;
    Some(FailureGroup {
        example: (*example).to_owned(),
        newest: newest.id,
        count: members.len(),
        given_up: members.iter().filter(is_given_up).count(),
        common: common.map(str::to_owned),
    })
}

/// The longest part of one line without a word that differs between mails.
fn constant_part(error: &str) -> Option<&str> {
    let is_constant = |word: &str| word.chars().all(|c| !c.is_numeric() && !matches!(c, '@' | '.' | '<' | '>' | '/'));
    let mut longest = "";
    for line in error.lines() {
        let mut start = 0;
        // The end of each word, and the word.
        let mut at = 0;
        for word in line.split_inclusive(' ') {
            let end = at + word.len();
            let bare = word.trim_end_matches([' ', ',', ';', ':', '.']);
            if is_constant(bare) {
                let part = line.get(start..end).unwrap_or_default().trim();
                if part.len() > longest.len() {
                    longest = part;
                }
            } else {
                start = end;
            }
            at = end;
        }
    }
    (longest.len() >= SEARCHABLE).then_some(longest)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use postrider_transport::Recipient;

    use super::*;
    use crate::RecipientState;

    fn failed(state: State, error: Option<&str>) -> DeliverySummary {
        DeliverySummary {
            id: DeliveryId::new(),
            state,
            template_id: None,
            subject: None,
            recipient: Some(Recipient::new("ada@example.com")),
            recipient_state: RecipientState::Pending,
            recipients: 1,
            failed_recipients: 0,
            attempts: 1,
            created_at: SystemTime::UNIX_EPOCH,
            due_at: None,
            finished_at: None,
            last_error: error.map(str::to_owned),
        }
    }

    #[test]
    fn a_dead_letter_is_in_one_group_with_mail_that_waits() {
        let all = [
            failed(State::Pending, Some("451 mailbox busy")),
            failed(State::Dead, Some("permanent: 451 mailbox busy")),
            failed(State::Dead, Some("budget: 20 attempts spent: 451 mailbox busy")),
            failed(State::Dead, Some("expired: the next attempt would come too late: 451 mailbox busy")),
            failed(State::InDoubt, Some("in doubt: 451 mailbox busy")),
            failed(State::Dead, Some("expired: it was not sent in time")),
        ];
        let counts: Vec<_> = group(&all).iter().map(|group| (group.count, group.given_up)).collect();
        assert_eq!(counts, [(5, 4), (1, 1)]);
    }

    #[test]
    fn errors_that_differ_in_their_variable_parts_are_one_group() {
        let all = [
            failed(State::Dead, Some("550 5.1.1 <ada@example.com>: mailbox is unknown here")),
            failed(State::Pending, Some("connection refused")),
            failed(State::Pending, None),
            failed(State::Pending, Some("550 5.1.1 <bob@example.org>: mailbox is unknown here")),
        ];
        let groups = group(&all);
        assert_eq!(groups.len(), 2);
        let first = &groups[0];
        assert_eq!((first.count, first.given_up, first.newest), (2, 1, all[3].id));
        assert_eq!(first.common.as_deref(), Some("mailbox is unknown here"));
        assert_eq!(groups[1].example, "connection refused");
    }

    #[test]
    fn a_part_for_a_search_is_in_all_errors_or_left_out() {
        assert_eq!(constant_part("451 try again in 5 minutes"), Some("try again in"));
        assert_eq!(constant_part("550 no"), None);
        assert_eq!(constant_part(""), None);
        assert_eq!(constant_part("é 1 größere Störung"), Some("größere Störung"));
        // Case differs, so a search for one of them would miss the other.
        let groups =
            group(&[failed(State::Dead, Some("Mailbox is full")), failed(State::Dead, Some("mailbox is full"))]);
        assert_eq!((groups.len(), groups[0].count, &groups[0].common), (1, 2, &None));
    }
}
