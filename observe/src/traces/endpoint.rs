//! Where spans go, and what else the standard variables say.

use hyper::Uri;
use std::time::Duration;

/// Path of traces below a collector's base address, by the protocol.
const PATH: &str = "/v1/traces";
const TIMEOUT: Duration = Duration::from_secs(5);

/// The address that spans are posted to.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl std::fmt::Debug for Endpoint {
    /// As it is shown to people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Endpoint").field(&self.shown()).finish()
    }
}

impl Endpoint {
    /// A collector by its base address, `http://HOST:PORT`; spans go to its `/v1/traces`.
    ///
    /// # Errors
    /// [`TraceError`]: it is no such address.
    pub fn of_base(base: &str) -> Result<Self, TraceError> {
        if base.contains('?') {
            return Err(TraceError::address(
                "with a query; give the whole address in OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            ));
        }
        let base = base.trim_end_matches('/');
        Self::of_whole(&match base.ends_with(PATH) {
            true => base.to_owned(),
            false => format!("{base}{PATH}"),
        })
    }

    /// A collector by the whole address of its traces.
    ///
    /// # Errors
    /// [`TraceError`]: it is no such address.
    pub fn of_whole(url: &str) -> Result<Self, TraceError> {
        // The text itself is never shown: what is wrong about it may be a password.
        let uri: Uri = url.parse().map_err(|_| TraceError::address("no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(TraceError::address(
                "not http:// (TLS is left to a collector beside this process)",
            ));
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => Err(TraceError::address(
                "with a user or password in it; give those in OTEL_EXPORTER_OTLP_HEADERS",
            )),
            Some(authority) if !authority.host().is_empty() => Ok(Self(url.to_owned())),
            _ => Err(TraceError::address("without a host")),
        }
    }

    /// The one to use: none if the environment switches traces off (`OTEL_SDK_DISABLED=true`,
    /// `OTEL_TRACES_EXPORTER=none`), else the setting `otlp_endpoint`, else
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else `OTEL_EXPORTER_OTLP_ENDPOINT`, else none.
    ///
    /// # Errors
    /// [`TraceError`]: it is no such address, or the environment wants another protocol than
    /// `http/protobuf`.
    pub fn chosen(
        setting: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, TraceError> {
        let said = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let off = said("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"))
            || said("OTEL_TRACES_EXPORTER").is_some_and(|v| v == "none");
        if off {
            return Ok(None);
        }
        if !setting.is_empty() {
            let endpoint = Self::of_base(setting);
            return endpoint.map(Some).map_err(|e| e.named("otlp_endpoint"));
        }
        let (name, endpoint) = if let Some(url) = said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Self::of_whole(&url))
        } else if let Some(url) = said("OTEL_EXPORTER_OTLP_ENDPOINT") {
            ("OTEL_EXPORTER_OTLP_ENDPOINT", Self::of_base(&url))
        } else {
            return Ok(None);
        };
        let protocol = said("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| said("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if protocol.is_some_and(|protocol| protocol != "http/protobuf") {
            return Err(TraceError(
                "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken; name the collector's HTTP \
                 port, such as http://127.0.0.1:4318, in the setting otlp_endpoint"
                    .to_owned(),
            ));
        }
        endpoint.map(Some).map_err(|e| e.named(name))
    }

    pub(super) fn url(&self) -> &str {
        &self.0
    }

    /// For people: without a query, which may hold a key.
    pub(super) fn shown(&self) -> String {
        self.0.split('?').next().unwrap_or_default().to_owned()
    }
}

/// Why traces cannot be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError(String);

impl TraceError {
    fn address(what: &str) -> Self {
        Self(format!(
            "it is {what}; it must be http://HOST:PORT, such as http://127.0.0.1:4318"
        ))
    }

    fn named(self, name: &str) -> Self {
        Self(format!("{name}: {}", self.0))
    }

    pub(super) fn exporter(error: impl std::fmt::Display) -> Self {
        Self(format!("traces cannot be exported: {error}"))
    }
}

impl std::fmt::Display for TraceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TraceError {}

/// Time for one request, all of it.
pub(super) fn timeout() -> Duration {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ];
    let said = names.iter().find_map(|name| std::env::var(name).ok());
    let ms = said.and_then(|text| text.trim().parse().ok());
    ms.filter(|ms| *ms > 0)
        .map_or(TIMEOUT, Duration::from_millis)
}

/// The share of traces that `OTEL_TRACES_SAMPLER` wants; all of them if it says nothing that is known.
pub(super) fn sampled_ratio(variable: impl Fn(&str) -> Option<String>) -> f64 {
    let argument = || variable("OTEL_TRACES_SAMPLER_ARG")?.trim().parse().ok();
    match variable("OTEL_TRACES_SAMPLER").as_deref() {
        Some("always_off" | "parentbased_always_off") => 0.0,
        Some("traceidratio" | "parentbased_traceidratio") => argument().unwrap_or(1.0),
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(setting: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let of = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let endpoint = Endpoint::chosen(setting, of).map_err(|e| e.to_string())?;
        Ok(endpoint.map(|endpoint| endpoint.url().to_owned()))
    }

    #[test]
    fn the_setting_wins_over_the_variables_and_a_base_address_gets_the_path() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:4318/");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://w:1/x");
        for (setting, variables, expected) in [
            ("", &[][..], None),
            ("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], None),
            ("", &[base], Some("http://b:4318/v1/traces")),
            ("", &[base, whole], Some("http://w:1/x")),
            ("http://s:2", &[base, whole], Some("http://s:2/v1/traces")),
            ("http://s:2/v1/traces", &[], Some("http://s:2/v1/traces")),
            ("http://s:2", &[("OTEL_SDK_DISABLED", "TRUE")], None),
            ("http://s:2", &[("OTEL_TRACES_EXPORTER", "none")], None),
        ] {
            let expected = Ok(expected.map(str::to_owned));
            assert_eq!(chosen(setting, variables), expected, "{setting}");
        }
    }

    #[test]
    fn a_wrong_address_is_named_and_never_shown() {
        for bad in [
            "https://secret.example",
            "secret:4318",
            "http://user:secret@host:4318",
            "http:///secret",
            "http://secret host",
            "\u{0}secret",
            "grpc://secret",
            "http://host:4318?key=secret",
        ] {
            let setting = chosen(bad, &[]).expect_err(bad);
            assert!(setting.starts_with("otlp_endpoint: it is "), "{setting}");
            assert!(!setting.contains("secret"), "{setting}");
            let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
            let variable = chosen("", &[(name, bad)]).expect_err(bad);
            assert!(variable.starts_with(name), "{variable}");
            assert!(!variable.contains("secret"), "{variable}");
        }
        let grpc = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ];
        let error = chosen("", &grpc).expect_err("another protocol");
        assert!(error.contains("http/protobuf"), "{error}");
    }

    #[test]
    fn a_key_in_the_address_is_not_shown() {
        let endpoint = Endpoint::of_whole("http://h/v1/traces?key=secret").expect("an address");
        assert_eq!(format!("{endpoint:?}"), r#"Endpoint("http://h/v1/traces")"#);
    }

    #[test]
    fn the_sampler_is_the_standard_variables() {
        let ratio = |sampler: &'static str, argument: &'static str| {
            sampled_ratio(|name| match name {
                "OTEL_TRACES_SAMPLER" => Some(sampler.to_owned()),
                _ => Some(argument.to_owned()),
            })
        };
        assert_eq!(ratio("traceidratio", "0.25"), 0.25);
        assert_eq!(ratio("parentbased_traceidratio", "nonsense"), 1.0);
        assert_eq!(ratio("always_off", ""), 0.0);
        assert_eq!(ratio("xray", ""), 1.0);
        assert_eq!(sampled_ratio(|_| None), 1.0);
    }
}
