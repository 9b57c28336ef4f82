//! Tests of the configuration: precedence, refusals, and what an operator reads.

use super::*;

fn load(
    file: Option<&str>,
    environment: &[(&str, &str)],
    flags: Flags,
) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let mut flags = flags;
    if let Some(text) = file {
        let path = dir.path().join("syncline.toml");
        fs::write(&path, text).unwrap();
        flags.config = Some(path);
    }
    let environment = environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::load(&flags, environment)
}

fn refused(file: Option<&str>, environment: &[(&str, &str)]) -> String {
    let text = load(file, environment, Flags::default())
        .unwrap_err()
        .to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    assert!(text.contains("; "), "says how to mend it: {text}");
    text
}

#[test]
fn nothing_set_is_the_default() {
    assert_eq!(
        load(None, &[], Flags::default()).unwrap(),
        Config::default()
    );
    assert_eq!(Config::default().store.as_str(), "sqlite:data/syncline.db");
    assert!(Config::default().http.listen.ip().is_loopback());
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = "store = \"memory:\"\n[http]\nlisten = \"127.0.0.1:1\"\nconnections_max = 7\n\
                [webtransport]\nlisten = \"127.0.0.1:1\"\n[log]\nformat = \"json\"\n";
    let environment = [
        ("SYNCLINE_HTTP", "127.0.0.1:2"),
        ("SYNCLINE_WEBTRANSPORT", "127.0.0.1:2"),
        ("SYNCLINE_LOG__FILTER", "debug"),
        ("PATH", "/bin"),
        ("SYNCLINE_STORE", ""),
        ("SYNCLINE_BIN", "target/debug/syncline"),
        ("SYNCLINE_TEST_KILLS", "50"),
    ];
    let flags = Flags {
        webtransport: Some("[::1]:3".into()),
        ..Flags::default()
    };
    let config = load(Some(file), &environment, flags).unwrap();
    assert_eq!(config.http.listen, "127.0.0.1:2".parse().unwrap());
    assert_eq!(config.http.connections_max, 7);
    assert_eq!(config.webtransport.listen, "[::1]:3".parse().unwrap());
    assert_eq!(config.log.format, telemetry::logging::Format::Json);
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.store.as_str(), "memory:");
}

#[test]
fn the_environment_has_long_and_short_forms_and_is_typed_by_the_default() {
    let environment = [
        ("SYNCLINE_HTTP", "127.0.0.1:2"),
        ("SYNCLINE_HTTP__LISTEN", "127.0.0.1:3"),
        ("SYNCLINE_HTTP__CONNECTIONS_MAX", "500"),
        ("SYNCLINE_HTTP__HEADER_TIMEOUT", "1m"),
    ];
    let config = load(None, &environment, Flags::default()).unwrap();
    assert_eq!(config.http.listen, "127.0.0.1:3".parse().unwrap());
    assert_eq!(config.http.connections_max, 500);
    assert_eq!(config.http.header_timeout.as_secs(), 60);
}

#[test]
fn the_store_follows_the_data_directory_unless_set() {
    let flags = Flags {
        data: Some("/srv/syncline".into()),
        ..Flags::default()
    };
    let config = load(None, &[], flags.clone()).unwrap();
    assert_eq!(config.store.as_str(), "sqlite:/srv/syncline/syncline.db");
    let config = load(None, &[("SYNCLINE_STORE", "memory:")], flags).unwrap();
    assert_eq!(config.store.as_str(), "memory:");
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    fs::write(&path, "store = \"memory:\"").unwrap();
    let environment = [("SYNCLINE_CONFIG".into(), path.into_os_string())];
    let config = Config::load(&Flags::default(), environment).unwrap();
    assert_eq!(config.store.as_str(), "memory:");
}

#[test]
fn an_unknown_key_is_refused_with_its_path_and_the_nearest_known_key() {
    let text = refused(Some("[http]\nlisen = \"127.0.0.1:1\""), &[]);
    assert!(text.contains("unknown key `http.lisen`"), "{text}");
    assert!(
        text.contains("syncline.toml; did you mean `http.listen`?"),
        "{text}"
    );

    let text = refused(Some("[htp]\nlisten = \"127.0.0.1:1\""), &[]);
    assert!(text.contains("unknown key `htp`"), "{text}");
    assert!(text.contains("did you mean `http`?"), "{text}");

    let text = refused(Some("filter = \"info\""), &[]);
    assert!(text.contains("did you mean `log.filter`?"), "{text}");

    let text = refused(None, &[("SYNCLINE_LOG__WHATEVER", "1")]);
    assert!(text.contains("unknown key `log.whatever`"), "{text}");
    assert!(
        text.contains("in the environment as SYNCLINE_LOG__WHATEVER"),
        "{text}"
    );
    assert!(
        text.contains("known here: log.format, log.filter"),
        "{text}"
    );

    let text = refused(None, &[("SYNCLINE_STROE", "memory:")]);
    assert!(text.contains("did you mean `store`?"), "{text}");
}

#[test]
fn a_wrong_value_is_refused_with_its_path_and_what_is_expected() {
    let text = refused(Some("[http]\nconnections_max = \"many\""), &[]);
    assert!(text.contains("`http.connections_max`, set in "), "{text}");
    assert!(text.contains("expected usize"), "{text}");
    assert!(text.contains("the default is 10000"), "{text}");

    let text = refused(None, &[("SYNCLINE_HTTP__CONNECTIONS_MAX", "many")]);
    assert!(text.contains("SYNCLINE_HTTP__CONNECTIONS_MAX"), "{text}");

    let text = refused(None, &[("SYNCLINE_HTTP", "localhost")]);
    assert!(text.contains("such as 127.0.0.1:8080"), "{text}");

    let text = refused(Some("[http]\nheader_timeout = 10"), &[]);
    assert!(text.contains("`http.header_timeout`"), "{text}");
    let text = refused(Some("[http]\nheader_timeout = \"10 fortnights\""), &[]);
    assert!(text.contains("is not a duration"), "{text}");

    let text = refused(Some("[log]\nformat = \"xml\""), &[]);
    assert!(
        text.contains("`log.format`") && text.contains("`json`"),
        "{text}"
    );
}

#[test]
fn a_value_in_place_of_a_section_is_explained() {
    let text = refused(None, &[("SYNCLINE_LOG", "debug")]);
    assert!(text.contains("`log` is a section"), "{text}");
    let text = refused(Some("http = \"127.0.0.1:8080\""), &[]);
    assert!(text.contains("`http` is a section"), "{text}");
}

#[test]
fn a_file_that_is_missing_or_malformed_is_explained() {
    let flags = Flags {
        config: Some("/does/not/exist.toml".into()),
        ..Flags::default()
    };
    let text = load(None, &[], flags).unwrap_err().to_string();
    assert!(
        text.contains("/does/not/exist.toml") && text.contains("--config"),
        "{text}"
    );

    let text = refused(Some("store = \"memory:\"\n[http\nlisten = 3"), &[]);
    assert!(text.contains("syncline.toml:2:"), "{text}");
}

#[test]
fn what_is_shown_can_be_read_back_and_hides_the_password() {
    let shown = Config::default().to_toml();
    assert_eq!(
        load(Some(&shown), &[], Flags::default()).unwrap(),
        Config::default(),
        "{shown}"
    );
    let config = load(
        None,
        &[("SYNCLINE_STORE", "postgres://me:s3cret@db/x")],
        Flags::default(),
    );
    let shown = config.unwrap().to_toml();
    assert!(shown.contains("postgres://me:hidden@db/x"), "{shown}");
    assert!(!shown.contains("s3cret"));
}

#[test]
fn the_annotated_file_is_true() {
    let shipped = include_str!("../../deploy/syncline.toml");
    let data = Path::new("/var/lib/syncline");
    let expected = Config {
        data: data.to_owned(),
        store: StoreUrl::sqlite_in(data),
        ..Config::default()
    };
    let config = load(Some(shipped), &[], Flags::default()).unwrap();
    assert_eq!(config, expected);
    // What is commented out is the default.
    let is_setting = |line: &&str| line.starts_with("# ") && line.contains(" = ");
    let all: String = shipped
        .lines()
        .map(|line| if is_setting(&line) { &line[2..] } else { line })
        .map(|line| format!("{line}\n"))
        .collect();
    let config = load(Some(&all), &[], Flags::default()).unwrap();
    assert_eq!(config, expected, "{all}");
}
