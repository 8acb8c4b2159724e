//! Which operator makes a call of the `flwr` command: by a client certificate, by the token of a login, or because the address is this
//! machine's own; and the login itself, as `flwr login` asks for it.
//!
//! Invariant: where operators log in, no call but those of the login is served without one, on no address. Observed with flwr 1.42.0: the
//! token comes as a bearer token, the login's page is opened in a browser and its address printed.

use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use sheaf_domain::{ErrorKind, Identity};
use sheaf_pki::Peer;

use crate::answer::Answer;
use crate::connection::Connection;
use crate::error::{FlowerCode, FlowerError};
use crate::front::Flower;
use crate::incoming::Incoming;
use crate::proto;
use crate::routes::LoginCall;

/// The kind of login that `flwr login` knows and this server speaks.
const LOGIN_TYPE: &str = "oidc";
/// How often the command asks whether its login was approved, in seconds.
const ASK_EVERY_S: i64 = 2;
/// The header of earlier commands that call over gRPC.
const GRPC_TOKEN_HEADER: &str = "flwr-oidc-access-token";
/// Where the page of a login is.
const PAGE_PATH: &str = "/login/";
/// The longest name of this server that is taken from a call, in bytes.
const HOST_LEN_MAX: usize = 255;

/// What is known of who makes a call, before it is asked which call it is.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) connection: Connection,
    certificate: Option<Identity>,
    token: Option<String>,
    /// By which name the caller reached this server.
    host: Option<String>,
}

impl Caller {
    pub(crate) fn of(parts: &Parts) -> Caller {
        let connection = parts.extensions.get::<Connection>().cloned().unwrap_or_else(Connection::unknown);
        Caller {
            connection,
            certificate: parts.extensions.get::<Peer>().map(|peer| peer.identity.clone()),
            token: token(&parts.headers),
            host: host(parts),
        }
    }
}

fn token(headers: &HeaderMap) -> Option<String> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let token = bearer.or_else(|| headers.get(GRPC_TOKEN_HEADER)?.to_str().ok())?;
    Some(token.trim().to_owned())
}

fn host(parts: &Parts) -> Option<String> {
    let named = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let named = parts.uri.authority().map(|authority| authority.as_str()).or(named)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    (named.len() <= HOST_LEN_MAX && named.bytes().all(plain)).then(|| named.to_owned())
}

impl Flower {
    /// The operator who makes a call.
    ///
    /// # Errors
    /// Account authentication failed where operators log in and this one has not; no permissions for one who is no operator.
    pub(crate) fn operator(&self, caller: &Caller) -> Result<Identity, FlowerError> {
        if !self.settings.operator_login {
            return Ok(self.local_operator().clone());
        }
        let who = match (&caller.certificate, &caller.token) {
            (Some(identity), _) => identity.clone(),
            (None, Some(token)) => self.relays.operator_of(token).map_err(|error| refused(&error))?,
            (None, None) => {
                let detail = "log in with `flwr login`, or come with an operator's certificate";
                return Err(FlowerError::new(FlowerCode::AccountAuthenticationFailed, detail));
            }
        };
        let allowed = self.relays.authorise_operator(&who);
        allowed.map_err(|error| FlowerError::new(FlowerCode::NoPermissions, error.to_string()))?;
        Ok(who)
    }

    fn check_login(&self) -> Result<(), FlowerError> {
        if self.settings.operator_login {
            return Ok(());
        }
        Err(FlowerError::new(FlowerCode::NoAccountAuth, "operators do not log in on this server"))
    }

    /// Serves a call of a login.
    ///
    /// # Errors
    /// No account authentication where operators do not log in; account authentication failed for a login that is over.
    pub(crate) async fn login(
        &self,
        call: LoginCall,
        caller: &Caller,
        incoming: Incoming,
    ) -> Result<Answer, FlowerError> {
        match call {
            LoginCall::GetLoginDetails => {
                let proto::GetLoginDetailsRequest {} = incoming.decode().await?;
                self.check_login()?;
                self.login_details(caller)
            }
            LoginCall::GetAuthTokens => {
                let request: proto::GetAuthTokensRequest = incoming.decode().await?;
                self.check_login()?;
                let token = self.relays.complete_login(&request.device_code).await;
                let token = token.map_err(|error| refused(&error))?;
                let access_token = token.map(|token| token.reveal().to_owned()).unwrap_or_default();
                // Observed: the command takes a token only in company. Nothing is refreshed here.
                let refresh_token = access_token.clone();
                Ok(Answer::of(&proto::GetAuthTokensResponse { access_token, refresh_token }))
            }
            LoginCall::RefreshAuthTokens => {
                incoming.drain().await;
                self.check_login()?;
                let detail = "this login has ended: log in again with `flwr login`";
                Err(FlowerError::new(FlowerCode::AccountAuthenticationFailed, detail))
            }
        }
    }

    fn login_details(&self, caller: &Caller) -> Result<Answer, FlowerError> {
        let request = self.relays.request_login(caller.connection.peer()).map_err(|error| refused(&error))?;
        let code = shown(&request.code);
        let page = caller.host.as_ref().map(|host| format!("https://{host}{PAGE_PATH}{code}"));
        Ok(Answer::of(&proto::GetLoginDetailsResponse {
            authn_type: LOGIN_TYPE.to_owned(),
            device_code: request.secret.reveal().to_owned(),
            verification_uri_complete: page.unwrap_or_else(|| format!("{PAGE_PATH}{code}")),
            expires_in: i64::try_from(request.lasts.as_secs()).unwrap_or(i64::MAX),
            interval: ASK_EVERY_S,
        }))
    }

    /// The page that `flwr login` opens: what an operator does to let the asker in. It says nothing of whether the code is one.
    pub(crate) fn login_page(&self, path: &str) -> Option<Response> {
        let code = path.strip_prefix(PAGE_PATH)?;
        let plain = code.len() == 9 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if !self.settings.operator_login || !plain {
            return None;
        }
        let text = format!(
            "To let this flwr command in, an operator of the server runs\n\n    sheaf login approve {code} NAME\n\n\
             and only if the person who sees this code asked for it. The command goes on by itself.\n"
        );
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
        Some((StatusCode::OK, kind, text).into_response())
    }
}

/// A code as people read it.
fn shown(code: &str) -> String {
    let (front, back) = code.split_at_checked(code.len() / 2).unwrap_or((code, ""));
    format!("{front}-{back}")
}

fn refused(error: &sheaf_coordinator::Error) -> FlowerError {
    let code = match error.kind() {
        ErrorKind::Unauthenticated => FlowerCode::AccountAuthenticationFailed,
        _ => FlowerCode::Unavailable,
    };
    FlowerError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_either_transport_and_a_host_only_when_it_is_one() {
        let parts = |name: &str, value: &str| {
            http::Request::builder().uri("/x").header(name, value).body(()).unwrap().into_parts().0
        };
        assert_eq!(Caller::of(&parts("authorization", "Bearer abc")).token.as_deref(), Some("abc"));
        assert_eq!(Caller::of(&parts(GRPC_TOKEN_HEADER, "abc")).token.as_deref(), Some("abc"));
        assert_eq!(Caller::of(&parts("authorization", "Basic abc")).token, None);
        assert_eq!(Caller::of(&parts("host", "[::1]:8000")).host.as_deref(), Some("[::1]:8000"));
        assert_eq!(Caller::of(&parts("host", "evil/path?x")).host, None);
        assert_eq!(shown("BCDFGHJK"), "BCDF-GHJK");
    }
}
