//! What the configuration has to know of the cloud's services: which there are, and where they are by default.

use crate::domain::service::ServiceName;

/// Every service that this program knows.
pub(super) fn services() -> Vec<ServiceName> {
    ["oms", "sms"]
        .into_iter()
        .filter_map(ServiceName::parse)
        .collect()
}

/// The base address of a service for projects of a region; `None` where it must be written out.
pub(super) fn endpoint(service: &ServiceName, region: &str) -> Option<String> {
    match service.as_str() {
        "oms" => Some(format!("https://oms.{region}.myhuaweicloud.com")),
        "sms" if region.starts_with("cn-") => {
            Some("https://sms.cn-north-4.myhuaweicloud.com".to_owned())
        }
        "sms" => {
            let own_site = ["eu-", "ru-", "my-", "ae-"]
                .iter()
                .any(|prefix| region.starts_with(prefix));
            (!own_site).then(|| "https://sms.ap-southeast-3.myhuaweicloud.com".to_owned())
        }
        _ => None,
    }
}

/// The base address of the token service of a region; `None` where it must be written out.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the caller is ready for regions without a default"
)]
pub(super) fn iam_endpoint(region: &str) -> Option<String> {
    Some(format!("https://iam.{region}.myhuaweicloud.com"))
}
