//! Mail between principals.

use bytes::Bytes;
use sheaf_domain::{ByteSpan, Digest, ErrorKind, Identity, MailDraft, MailId, Principal, RunId, Span};
use sheaf_runtime::Clock as _;

use crate::world::{Backend, HOLD_MAX, Site, World, on_both, plan};

on_both!(mail_waits_until_it_is_acknowledged, bodies_are_kept_as_long_as_their_mail_waits);

fn draft(world: &World, run: RunId, from: &Site, to: &Site) -> MailDraft {
    MailDraft {
        run,
        from: Principal::Participant(from.who.name.clone()),
        to: Principal::Participant(to.who.name.clone()),
        kind: "share".to_owned(),
        correlation: "1".to_owned(),
        expires_at: world.clock.now().after(Span::from_secs(60)),
        body: None,
        header: "{}".to_owned(),
    }
}

async fn mail_waits_until_it_is_acknowledged(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(2).await;
    let run = world.create(&plan(1, 2, "")).await;
    let (from, to) = (&sites[0], &sites[1]);
    let post = async |who: &Identity, draft: MailDraft| world.handle.post_mail(who, draft, None).await;

    // A held request sees it come.
    let (handle, who) = (world.handle.clone(), to.who.clone());
    let held = async move { handle.mail(&who, &["share".to_owned()], None, 10, HOLD_MAX).await };
    let (seen, posted) = tokio::join!(held, post(&from.who, draft(&world, run, from, to)));
    let (mail, new) = posted.unwrap();
    assert!(new);
    assert_eq!(seen.unwrap(), std::slice::from_ref(&mail));
    let (again, new) = post(&from.who, draft(&world, run, from, to)).await.unwrap();
    assert_eq!((again.id, new), (mail.id, false));

    // Only as oneself, only to those who are in, only for runs there are.
    let refused = post(&to.who, draft(&world, run, from, to)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let nobody = Principal::Participant(crate::world::name("nobody"));
    let lost = post(&from.who, MailDraft { to: nobody, ..draft(&world, run, from, to) }).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::NotFound);
    let other = MailDraft { run: RunId::new(9).unwrap(), ..draft(&world, run, from, to) };
    assert_eq!(post(&from.who, other).await.unwrap_err().kind(), ErrorKind::NotFound);
    let late = MailDraft { expires_at: world.clock.now(), ..draft(&world, run, from, to) };
    assert_eq!(post(&from.who, late).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let long = MailDraft { kind: "k".repeat(257), ..draft(&world, run, from, to) };
    assert_eq!(post(&from.who, long).await.unwrap_err().kind(), ErrorKind::InvalidArgument);

    // The sender does not see or end what waits for another; other kinds are not shown; a restart changes nothing.
    let now = Span::default();
    assert!(world.handle.mail(&from.who, &[], None, 10, now).await.unwrap().is_empty());
    assert_eq!(world.handle.ack_mail(&from.who, &[mail.id]).await.unwrap(), 0);
    assert!(world.handle.mail(&to.who, &["else".to_owned()], None, 10, now).await.unwrap().is_empty());
    world.restart().await;
    assert_eq!(world.handle.mail(&to.who, &[], None, 10, now).await.unwrap().len(), 1);
    assert!(world.handle.mail(&to.who, &[], Some(mail.id), 10, now).await.unwrap().is_empty());
    assert_eq!(world.handle.ack_mail(&to.who, &[mail.id, MailId(999)]).await.unwrap(), 1);
    assert!(world.handle.mail(&to.who, &[], None, 10, now).await.unwrap().is_empty());

    // Between an operator and a site as well.
    let to_operator =
        MailDraft { to: Principal::Operator(world.operator.name.clone()), ..draft(&world, run, from, to) };
    world.handle.post_mail(&from.who, to_operator, None).await.unwrap();
    assert_eq!(world.handle.mail(&world.operator, &[], None, 10, now).await.unwrap().len(), 1);
}

async fn bodies_are_kept_as_long_as_their_mail_waits(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(3).await;
    let run = world.create(&plan(1, 2, "")).await;
    let (from, to) = (&sites[0], &sites[1]);
    let body = Bytes::from_static(b"a share of a secret");
    let digest = Digest::of(&body);
    let put = async |world: &World, upload: &str| {
        let mut writer = world.handle.upload_body(&from.who, upload, body.len() as u64).await?;
        writer.write(body.clone()).await?;
        writer.finish(digest).await
    };
    let stored = async |world: &World| world.blob.len(&digest).await.unwrap().is_some();
    let with_body = |world: &World| MailDraft { body: Some(digest), ..draft(world, run, from, to) };

    let missing = world.handle.post_mail(&from.who, with_body(&world), Some("m1")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidArgument);
    put(&world, "m1").await.unwrap();
    // Not by the name of another sender's upload.
    let theirs = MailDraft { from: Principal::Participant(sites[2].who.name.clone()), ..with_body(&world) };
    assert!(world.handle.post_mail(&sites[2].who, theirs, Some("m1")).await.is_err());
    let (mail, _) = world.handle.post_mail(&from.who, with_body(&world), Some("m1")).await.unwrap();
    let holds = world.blob.holds().await.unwrap();
    assert!(holds.iter().all(|hold| !hold.as_str().starts_with("post/")), "{holds:?}");
    world.restart().await;
    let span = ByteSpan { offset: 2, len: 5 };
    assert_eq!(world.handle.read_body(&to.who, mail.id, span).await.unwrap(), body.slice(2..7));
    for stranger in [&from.who, &sites[2].who] {
        let refused = world.handle.read_body(stranger, mail.id, span).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
    }
    assert_eq!(world.handle.ack_mail(&to.who, &[mail.id]).await.unwrap(), 1);
    assert!(!stored(&world).await);

    // Expired mail takes its body with it, at the latest at the next start.
    put(&world, "m2").await.unwrap();
    let second = MailDraft { correlation: "2".to_owned(), ..with_body(&world) };
    world.handle.post_mail(&from.who, second, Some("m2")).await.unwrap();
    world.restart().await;
    assert!(stored(&world).await);
    world.clock.advance(Span::from_secs(61));
    world.restart().await;
    assert!(!stored(&world).await);

    // Uploads that are never posted are bounded, and gone after a restart.
    let mut refused = None;
    for upload in 0..20 {
        if let Err(error) = put(&world, &format!("u{upload}")).await {
            refused = Some(error.kind());
            break;
        }
    }
    assert_eq!(refused, Some(ErrorKind::Exhausted));
    world.restart().await;
    assert!(!stored(&world).await);
}
