//! The header of every call: who sends it, and whether it is meant for this federation.
//!
//! Pure. First the certificate is held against the name, then every field against what this federation is. Refused by what is wrong, so that
//! a collaborator with another plan can be named to the operator.
//!
//! Source: observed with openfl 1.9, its `validate_collaborator` and `check_request`.

use crate::plan::Plan;
use crate::proto::openfl::aggregator::MessageHeader;

/// What the connection says of its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer<'c> {
    /// No TLS: the sender's word is all there is.
    Plain,
    /// TLS without client certificates: likewise.
    Uncertified,
    /// The common name of the certificate it presented and that was verified.
    Certified(&'c str),
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum HeaderError {
    #[error("it has no header")]
    Missing,
    /// The words are those stock peers know.
    #[error("Invalid collaborator. CN: |{common_name}| collaborator_common_name: |{sender}|")]
    NotTheSender { common_name: String, sender: String },
    #[error("{sender:?} is not among the collaborators")]
    UnknownSender { sender: String },
    #[error("it is meant for {receiver:?}")]
    OtherReceiver { receiver: String },
    /// Its plan is not ours.
    #[error("its plan is that of the federation {federation_uuid:?}")]
    OtherFederation { federation_uuid: String },
    #[error("its shared certificate would be that of {common_name:?}")]
    OtherCommonName { common_name: String },
}

/// The longest text of a header that is told on, in characters.
const TOLD_MAX: usize = 128;

fn told(text: &str) -> String {
    text.chars().take(TOLD_MAX).collect()
}

/// The collaborator whose call it is.
///
/// # Errors
/// [`HeaderError`], the first that applies.
pub fn sender<'h>(
    plan: &Plan,
    header: Option<&'h MessageHeader>,
    peer: Peer<'_>,
) -> Result<&'h str, HeaderError> {
    let header = header.ok_or(HeaderError::Missing)?;
    let sender = header.sender.as_str();
    let shared = plan.aggregator.single_col_cert_common_name.as_str();
    let is_known = plan.collaborators.contains(sender);
    if let Peer::Certified(common_name) = peer {
        let wanted = if shared.is_empty() { sender } else { shared };
        if common_name != wanted || !is_known {
            return Err(HeaderError::NotTheSender { common_name: told(common_name), sender: told(sender) });
        }
    }
    if !is_known {
        return Err(HeaderError::UnknownSender { sender: told(sender) });
    }
    if header.federation_uuid != plan.identity.federation_uuid {
        return Err(HeaderError::OtherFederation { federation_uuid: told(&header.federation_uuid) });
    }
    if header.receiver != plan.identity.aggregator_uuid {
        return Err(HeaderError::OtherReceiver { receiver: told(&header.receiver) });
    }
    if header.single_col_cert_common_name != shared {
        return Err(HeaderError::OtherCommonName { common_name: told(&header.single_col_cert_common_name) });
    }
    Ok(sender)
}

/// The header of an answer; stock collaborators assert every field of it.
pub fn answer(plan: &Plan, collaborator: &str) -> MessageHeader {
    MessageHeader {
        sender: plan.identity.aggregator_uuid.clone(),
        receiver: collaborator.to_owned(),
        federation_uuid: plan.identity.federation_uuid.clone(),
        single_col_cert_common_name: plan.aggregator.single_col_cert_common_name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{self, Surroundings};

    fn plan(shared: &str) -> Plan {
        let text = format!(
            "aggregator:\n  defaults: plan/defaults/aggregator.yaml\n  settings: {{single_col_cert_common_name: '{shared}'}}\n\
             network:\n  defaults: plan/defaults/network.yaml\nassigner:\n  defaults: plan/defaults/assigner.yaml\n\
             tasks:\n  defaults: plan/defaults/tasks_torch.yaml\n"
        );
        let around = Surroundings { file_name: "plan.yaml", fqdn: "agg.example", task_group: None };
        plan::read(&text, "collaborators: [col1, col2]\n", around).expect("a plan")
    }

    fn asked(plan: &Plan, change: fn(&mut MessageHeader), peer: Peer<'_>) -> Result<String, HeaderError> {
        let answer = answer(plan, "col1");
        let mut header =
            MessageHeader { sender: answer.receiver.clone(), receiver: answer.sender.clone(), ..answer };
        change(&mut header);
        sender(plan, Some(&header), peer).map(str::to_owned)
    }

    #[test]
    fn a_collaborator_is_who_its_certificate_says() {
        let plan = plan("");
        for peer in [Peer::Plain, Peer::Uncertified, Peer::Certified("col1")] {
            assert_eq!(asked(&plan, |_| {}, peer), Ok("col1".to_owned()), "{peer:?}");
        }
        let refused = asked(&plan, |_| {}, Peer::Certified("col2")).expect_err("another's certificate");
        assert_eq!(refused.to_string(), "Invalid collaborator. CN: |col2| collaborator_common_name: |col1|");
        let stranger = asked(&plan, |header| header.sender = "col3".into(), Peer::Certified("col3"));
        assert!(matches!(stranger, Err(HeaderError::NotTheSender { .. })));
        let stranger = asked(&plan, |header| header.sender = "col3".into(), Peer::Plain);
        assert!(matches!(stranger, Err(HeaderError::UnknownSender { .. })));
        assert_eq!(sender(&plan, None, Peer::Plain), Err(HeaderError::Missing));
    }

    #[test]
    fn a_shared_certificate_is_that_of_the_plan() {
        let plan = plan("shared");
        assert_eq!(asked(&plan, |_| {}, Peer::Certified("shared")), Ok("col1".to_owned()));
        assert!(matches!(
            asked(&plan, |_| {}, Peer::Certified("col1")),
            Err(HeaderError::NotTheSender { .. })
        ));
        let other =
            asked(&plan, |header| header.single_col_cert_common_name.clear(), Peer::Certified("shared"));
        assert!(matches!(other, Err(HeaderError::OtherCommonName { .. })));
    }

    #[test]
    fn another_plan_is_told_from_another_aggregator() {
        let plan = plan("");
        let other = asked(&plan, |header| header.federation_uuid = "plan.yaml_00000000".into(), Peer::Plain);
        let other = other.expect_err("another plan");
        assert!(other.to_string().contains("plan.yaml_00000000"));
        let other = asked(&plan, |header| header.receiver.push('x'), Peer::Plain);
        assert!(matches!(other, Err(HeaderError::OtherReceiver { .. })));
    }
}
