//! The calls of the native protocol, once for both transports: messages in, one call on the coordinator, messages out.
//!
//! Translates and decides nothing. Every call of a site ends with [`Error::Revoked`] when the site is revoked meanwhile.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use sheaf_coordinator::{Beat, Certificate, Delivery, Enrolment, Handle, Upload, WorkOrder};
use sheaf_domain::{ByteSpan, Digest, ErrorKind, Identity, Manifest, SlotName, Span, TaskId, VersionRef};
use sheaf_messages::{self as messages, Filled, Order, Wanted, Withdrawal, bounds, v1};
use sheaf_pki::Secret;
use sheaf_runtime::Clock;

use crate::Error;

/// The calls of the native protocol over one coordinator.
#[derive(Clone)]
pub struct Handlers {
    handle: Handle,
    clock: Arc<dyn Clock>,
}

impl Handlers {
    /// The calls over `handle`; `clock` judges whether certificates and signatures have ended.
    pub fn new(handle: Handle, clock: Arc<dyn Clock>) -> Handlers {
        Handlers { handle, clock }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub(crate) async fn enrol(
        &self,
        peer: IpAddr,
        request: v1::EnrolRequest,
    ) -> Result<v1::EnrolReply, Error> {
        messages::bounded("token", &request.token, bounds::TOKEN_LEN_MAX)?;
        let csr = messages::bounded("csr_pem", &request.csr_pem, bounds::CSR_LEN_MAX)?;
        let token = Secret::from(request.token);
        let reply = match self.handle.enrol(peer, &token, csr).await? {
            Enrolment::Issued(certificate) => v1::EnrolReply {
                state: "issued".to_owned(),
                certificate: Some(certificate_to_wire(certificate)),
                fingerprint: String::new(),
            },
            Enrolment::Pending { fingerprint } => v1::EnrolReply {
                state: "pending".to_owned(),
                certificate: None,
                fingerprint: fingerprint.to_string(),
            },
        };
        Ok(reply)
    }

    pub(crate) async fn renew(
        &self,
        who: &Identity,
        request: v1::RenewRequest,
    ) -> Result<v1::RenewReply, Error> {
        let csr = messages::bounded("csr_pem", &request.csr_pem, bounds::CSR_LEN_MAX)?;
        let certificate = self.handle.renew(who, csr).await?;
        Ok(v1::RenewReply { certificate: Some(certificate_to_wire(certificate)) })
    }

    pub(crate) async fn beat(
        &self,
        who: &Identity,
        request: v1::BeatRequest,
    ) -> Result<v1::BeatReply, Error> {
        let working = messages::tasks(&request.working)?;
        let client = messages::bounded("client", &request.client, bounds::CLIENT_LEN_MAX)?.to_owned();
        let reply = self.handle.beat(who, Beat { working, client }).await?;
        Ok(v1::BeatReply {
            beat_every_ms: reply.beat_every.as_millis(),
            withdrawn: reply.withdrawn.into_iter().map(withdrawn_to_wire).collect(),
        })
    }

    pub(crate) async fn next(
        &self,
        who: &Identity,
        request: v1::NextRequest,
    ) -> Result<v1::NextReply, Error> {
        let have = messages::tasks(&request.have)?;
        let hold = Span::from_millis(request.hold_ms);
        let held = async { Ok(self.handle.next(who, &have, hold).await?) };
        let mut reply = v1::NextReply::default();
        for delivery in self.until_revoked(who, held).await? {
            match delivery {
                Delivery::Work(order) => reply.work.push(order_of(*order)?.to_wire()?),
                Delivery::Withdraw(withdrawn) => reply.withdrawn.push(withdrawn_to_wire(withdrawn)),
            }
        }
        Ok(reply)
    }

    pub(crate) async fn version_len(&self, who: &Identity, version: &VersionRef) -> Result<u64, Error> {
        Ok(self.handle.manifest(who, version).await?.byte_len())
    }

    pub(crate) async fn read_version(
        &self,
        who: &Identity,
        version: &VersionRef,
        span: ByteSpan,
    ) -> Result<Bytes, Error> {
        if span.len > bounds::READ_LEN_MAX {
            return Err(messages::Error::TooLarge { field: "length", limit: bounds::READ_LEN_MAX }.into());
        }
        Ok(self.handle.read_version(who, version, span).await?)
    }

    pub(crate) async fn missing(
        &self,
        who: &Identity,
        request: v1::MissingRequest,
    ) -> Result<v1::MissingReply, Error> {
        let task = messages::task(&request.task)?;
        let digests = messages::digests(&request.digests)?;
        let missing = self.handle.missing(who, task, &digests).await?;
        Ok(v1::MissingReply { digests: missing.iter().map(Digest::to_string).collect() })
    }

    /// Reserves `len` bytes for a piece; only then may its body be read.
    pub(crate) async fn upload(&self, who: &Identity, task: TaskId, len: u64) -> Result<Upload, Error> {
        if len == 0 {
            return Err(Error::Protocol("a piece must have at least one byte"));
        }
        if len > bounds::PIECE_LEN_MAX {
            return Err(messages::Error::TooLarge { field: "length", limit: bounds::PIECE_LEN_MAX }.into());
        }
        let reserved = async { Ok(self.handle.upload(who, task, len).await?) };
        self.until_revoked(who, reserved).await
    }

    pub(crate) async fn submit(
        &self,
        who: &Identity,
        request: v1::SubmitRequest,
    ) -> Result<v1::SubmitReply, Error> {
        let task = request.task.clone();
        match messages::submission_from_wire(request) {
            Ok(submission) => Ok(messages::outcome_to_wire(&self.handle.submit(who, submission).await?)),
            Err(error) => self.refuse(who, &task, error.into()).await,
        }
    }

    /// Answers a submission that breaks the protocol: it ends the attempt it names, if that is one of the caller's; if not, it
    /// is noted with the caller's name.
    pub(crate) async fn refuse(
        &self,
        who: &Identity,
        task: &str,
        error: Error,
    ) -> Result<v1::SubmitReply, Error> {
        let message = error.to_string();
        let refused = match messages::task(task) {
            Ok(task) => self.handle.refuse_malformed(who, task, &message).await,
            Err(_) => Err(sheaf_coordinator::Error::new(ErrorKind::NotFound, "no such task")),
        };
        match refused {
            Ok(outcome) => Ok(messages::outcome_to_wire(&outcome)),
            Err(unknown) if unknown.kind() == ErrorKind::NotFound => {
                self.handle.note_malformed(who, &message);
                Err(error)
            }
            Err(other) => Err(other.into()),
        }
    }

    pub(crate) async fn fail(
        &self,
        who: &Identity,
        request: v1::FailRequest,
    ) -> Result<v1::FailReply, Error> {
        let task = messages::task(&request.task)?;
        let reason = messages::bounded("reason", &request.reason, bounds::REASON_LEN_MAX)?.to_owned();
        self.handle.fail(who, task, reason).await?;
        Ok(v1::FailReply {})
    }

    pub(crate) async fn leave(
        &self,
        who: &Identity,
        _request: v1::LeaveRequest,
    ) -> Result<v1::LeaveReply, Error> {
        self.handle.leave(who).await?;
        Ok(v1::LeaveReply {})
    }

    /// Runs `work` until it is done or the caller's site is revoked.
    pub(crate) async fn until_revoked<T>(
        &self,
        who: &Identity,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.handle.revoked(&who.name) => Err(Error::Revoked),
            done = work => done,
        }
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handlers")
    }
}

fn certificate_to_wire(certificate: Certificate) -> v1::Certificate {
    v1::Certificate {
        certificate_pem: certificate.pem,
        ca_pem: certificate.ca_pem,
        not_after_ms: certificate.not_after.as_millis(),
    }
}

fn withdrawn_to_wire(withdrawn: sheaf_coordinator::Withdrawn) -> v1::Withdrawn {
    Withdrawal { task: withdrawn.task, reason: withdrawn.reason }.to_wire()
}

/// An order without the places of bytes, which are the server's own business.
fn order_of(order: WorkOrder) -> Result<Order, Error> {
    let WorkOrder { assignment, inputs, expects, remaining } = order;
    let inputs = assignment.inputs.iter().map(|input| {
        let (_, manifest) = find(&inputs, &input.slot)?;
        Ok(Filled { input: input.clone(), tensors: manifest.specs().cloned().collect() })
    });
    let inputs = inputs.collect::<Result<Vec<_>, Error>>()?;
    let outputs = assignment.outputs.iter().map(|output| {
        let (_, manifest) = find(&expects, &output.slot)?;
        let tensors = manifest.as_ref().map(|manifest: &Arc<Manifest>| manifest.specs().cloned().collect());
        Ok(Wanted { output: output.clone(), tensors })
    });
    let outputs = outputs.collect::<Result<Vec<_>, Error>>()?;
    Ok(Order { assignment, inputs, outputs, remaining })
}

fn find<'a, T>(slots: &'a [(SlotName, T)], slot: &SlotName) -> Result<&'a (SlotName, T), Error> {
    slots.iter().find(|(name, _)| name == slot).ok_or_else(|| {
        let message = format!("slot {slot} of the assignment has no manifest");
        sheaf_coordinator::Error::new(ErrorKind::Internal, message).into()
    })
}
