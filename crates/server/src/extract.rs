//! How handlers receive JSON, query strings and forms: with errors that say
//! where the input is wrong.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::error::AppError;
use crate::http::BodyLimit;

/// How long a client may take to send a body, whatever its size.
const BODY_TIME: Duration = Duration::from_secs(60);

/// A whole request body, read under the route's limit and a time limit.
pub struct Raw(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = AppError;

    async fn from_request(request: Request, _: &S) -> Result<Self, AppError> {
        let limit = request
            .extensions()
            .get::<BodyLimit>()
            .map_or(0, |limit| limit.0);
        let collected = tokio::time::timeout(BODY_TIME, request.into_body().collect()).await;
        match collected {
            Err(_) => Err(AppError::new_status(
                axum::http::StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                format!(
                    "the request body did not arrive within {} seconds",
                    BODY_TIME.as_secs()
                ),
            )),
            Ok(Ok(body)) => Ok(Self(body.to_bytes())),
            Ok(Err(error)) if caused_by_limit(&error) => Err(AppError::too_large(limit)),
            Ok(Err(error)) => Err(AppError::invalid("the request body broke off").because(error)),
        }
    }
}

pub(crate) fn caused_by_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if current.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = current.source();
    }
    false
}

/// A JSON body of our own API. Unknown fields are refused by the types.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AppError> {
        require_type(request.headers(), "application/json")?;
        let Raw(bytes) = Raw::from_request(request, state).await?;
        parse_json(&bytes).map(Json)
    }
}

/// Reads JSON; the error names line, column and, where it can, the nearest known field.
///
/// # Errors
/// Not UTF-8, not JSON, or not of the wanted shape.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AppError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        AppError::invalid(format!("the JSON body was not understood: {error}"))
            .code("invalid_json")
            .at(place)
    })
}

fn require_type(headers: &axum::http::HeaderMap, wanted: &str) -> Result<(), AppError> {
    let sent = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let bare = sent.split(';').next().unwrap_or_default().trim();
    if bare.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(AppError::new_status(
        axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        format!("this address takes {wanted}, not {sent:?}"),
    ))
}

/// A form that a page posted.
pub struct Form<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AppError> {
        require_type(request.headers(), "application/x-www-form-urlencoded")?;
        let Raw(bytes) = Raw::from_request(request, state).await?;
        serde_html_form(&bytes).map(Form)
    }
}

fn serde_html_form<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AppError> {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(bytes).into_owned().collect();
    from_pairs(&pairs, "form")
}

/// The query string, as a typed struct.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AppError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        from_pairs(&pairs, "query string").map(Query)
    }
}

/// Reads name–value pairs into a struct whose fields are strings, numbers or flags.
/// Empty values count as absent, since an empty form field is sent, not left out.
fn from_pairs<T: DeserializeOwned>(pairs: &[(String, String)], what: &str) -> Result<T, AppError> {
    let given = pairs.iter().filter(|(_, value)| !value.is_empty());
    let fields = given.map(|(name, value)| (name.clone(), Lenient(value.clone())));
    let map = serde::de::value::MapDeserializer::<_, serde::de::value::Error>::new(fields);
    T::deserialize(map)
        .map_err(|error| AppError::invalid(format!("the {what} was not understood: {error}")))
}

/// A text that reads as whatever the field's type asks for.
struct Lenient(String);

macro_rules! parse_number {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            match self.0.parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => visitor.visit_string(self.0),
            }
        }
    )*};
}

impl<'de> serde::Deserializer<'de> for Lenient {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_bool<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0.as_str() {
            "1" | "true" | "on" => visitor.visit_bool(true),
            "0" | "false" | "off" => visitor.visit_bool(false),
            _ => visitor.visit_string(self.0),
        }
    }

    fn deserialize_enum<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(serde::de::value::StringDeserializer::new(self.0))
    }

    fn deserialize_newtype_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    parse_number!(
        deserialize_i64 visit_i64 i64, deserialize_u64 visit_u64 u64, deserialize_i32 visit_i32 i32,
        deserialize_u32 visit_u32 u32, deserialize_u16 visit_u16 u16, deserialize_f64 visit_f64 f64
    );

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

impl<'de> serde::de::IntoDeserializer<'de, serde::de::value::Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
