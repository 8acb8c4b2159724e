//! What an operator says of a SuperNode when its key is registered: a name and a place.
//!
//! Refused: a name that is longer than 256 bytes or has control characters, and a place that is not
//! `<latitude>,<longitude>` in degrees.

use sheaf_coordinator::KeyCard;

use crate::error::{FlowerCode, FlowerError};
use crate::proto;

/// The longest name, in bytes.
const LABEL_LEN_MAX: usize = 256;
/// The longest place, in bytes: two numbers as they are written by whoever measures.
const LOCATION_LEN_MAX: usize = 128;

/// The card of a registration.
///
/// # Errors
/// [`FlowerCode::InvalidSupernodeLocation`], and [`FlowerCode::InvalidProtobufPayload`] for the name.
pub(crate) fn card(request: proto::RegisterNodeRequest) -> Result<KeyCard, FlowerError> {
    if let Some(location) = &request.location {
        check_location(location)
            .map_err(|reason| FlowerError::new(FlowerCode::InvalidSupernodeLocation, reason))?;
    }
    if let Some(name) = &request.name
        && (name.len() > LABEL_LEN_MAX || name.contains(char::is_control))
    {
        let reason = format!("a node's name has {LABEL_LEN_MAX} bytes at most and no control characters");
        return Err(FlowerError::new(FlowerCode::InvalidProtobufPayload, reason));
    }
    Ok(KeyCard { label: request.name, location: request.location })
}

fn check_location(location: &str) -> Result<(), &'static str> {
    const FORM: &str = "a location is two numbers with a comma between them: \"<latitude>,<longitude>\"";
    let (latitude, longitude) = location.split_once(',').ok_or(FORM)?;
    if location.len() > LOCATION_LEN_MAX {
        return Err(FORM);
    }
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| FORM);
    let within = |value: f64, most: f64| value.is_finite() && value.abs() <= most;
    if within(number(latitude)?, 90.0) && within(number(longitude)?, 180.0) {
        return Ok(());
    }
    Err("a latitude is between -90 and 90 and a longitude between -180 and 180 degrees")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: Option<&str>, location: Option<&str>) -> proto::RegisterNodeRequest {
        let owned = |text: &str| text.to_owned();
        proto::RegisterNodeRequest {
            name: name.map(owned),
            location: location.map(owned),
            ..Default::default()
        }
    }

    #[test]
    fn a_card_is_kept_as_it_was_given() {
        let kept = card(request(Some("Ward 3, north"), Some("37.4056, -122.0775"))).unwrap();
        assert_eq!(kept.label.as_deref(), Some("Ward 3, north"));
        assert_eq!(kept.location.as_deref(), Some("37.4056, -122.0775"));
        assert_eq!(card(request(None, None)).unwrap(), KeyCard::default());
        assert!(card(request(None, Some("-90,180"))).is_ok());
    }

    #[test]
    fn a_place_that_is_none_is_refused() {
        let long = format!("1,{}", "0".repeat(LOCATION_LEN_MAX));
        for location in ["", "1", "1,2,3", "north,west", "91,0", "0,-181", "nan,0", "0,inf", &long] {
            let error = card(request(None, Some(location))).unwrap_err();
            assert_eq!(error.code, FlowerCode::InvalidSupernodeLocation, "{location}");
        }
    }

    #[test]
    fn a_name_without_bounds_is_refused() {
        for name in ["n".repeat(LABEL_LEN_MAX + 1), "a\u{1b}[2J".to_owned()] {
            let error = card(request(Some(&name), None)).unwrap_err();
            assert_eq!(error.code, FlowerCode::InvalidProtobufPayload);
        }
        assert!(card(request(Some(&"n".repeat(LABEL_LEN_MAX)), None)).is_ok());
    }
}
