//! Tests of reading and sharing out data.

use proptest::prelude::*;
use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec, npz};

use super::*;

fn csv(text: &str) -> Result<Dataset, String> {
    Dataset::from_csv(text, &ReadOptions::default()).map_err(|error| error.to_string())
}

fn archive(x: (&[u64], &[f64]), y: (&[u64], &[f64])) -> Result<Dataset, String> {
    let x = Tensor::from_f64(TensorSpec::new("x", Dtype::F32, x.0).unwrap(), x.1).unwrap();
    let y = Tensor::from_f64(TensorSpec::new("y", Dtype::I64, y.0).unwrap(), y.1).unwrap();
    read_archive(vec![x, y])
}

fn read_archive(arrays: Vec<Tensor>) -> Result<Dataset, String> {
    let mut file = std::io::Cursor::new(Vec::new());
    npz::write(&ParamSet::new(arrays).unwrap(), &mut file).unwrap();
    Dataset::from_npz(file.into_inner().into(), &ReadOptions::default()).map_err(|error| error.to_string())
}

#[test]
fn csv_is_read_with_and_without_a_header() {
    let plain = csv("1,2.5,0\n-3,4e1,2\n").unwrap();
    assert_eq!((plain.len(), plain.num_features(), plain.num_classes()), (2, 2, 3));
    assert_eq!((plain.row(0), plain.row(1), plain.row(2)), (&[1.0, 2.5][..], &[-3.0, 40.0][..], &[][..]));
    assert_eq!(csv("a,\"b\",label\r\n1, 2.5 ,0\r\n-3,4e1,2\r\n\r\n"), Ok(plain.clone()));
    assert_eq!(csv("\u{feff}1,2.5,0\n-3,4e1,2"), Ok(plain));
}

#[test]
fn the_label_is_found_by_name_and_features_are_scaled() {
    let options = ReadOptions { label: Some("digit".into()), num_classes: Some(10), scale: 0.5 };
    let data = Dataset::from_csv("digit,a,b\n3,2,4\n", &options).unwrap();
    assert_eq!((data.labels(), data.row(0), data.num_classes()), (&[3][..], &[1.0, 2.0][..], 10));
    for (text, word) in [
        ("a,b\n1,2\n", "no column is named \"digit\""),
        ("digit,digit\n1,2\n", "several columns"),
        ("1,2\n", "no header"),
    ] {
        let error = Dataset::from_csv(text, &options).unwrap_err().to_string();
        assert!(error.starts_with("line 1: ") && error.contains(word), "{error}");
    }
}

#[test]
fn a_malformed_line_is_named() {
    for (text, expected) in [
        ("1,2,0\n1,0\n", "line 2: it has 2 columns where the first line has 3"),
        ("a,b,c\n1,2,0\n1,x,0\n", "line 3: column 2: \"x\" is not a finite number"),
        ("1,2,0\n1,nan,0\n", "line 2: column 2: \"nan\" is not a finite number"),
        ("1,2,0\n1,1e999,0\n", "line 2: column 2: \"1e999\" is not a finite number"),
        ("1,2,0\n\n1,2,0\n", "line 2: it has 1 columns where the first line has 3"),
        ("1,2,0.5\n", "line 1: column 3: \"0.5\" is not the whole number of a class"),
        ("1,2,-1\n", "line 1: column 3: \"-1\" is not the whole number of a class"),
        ("1,2,1e9\n", "line 1: column 3: \"1e9\" is not the whole number of a class"),
        ("7\n", "line 1: it has one column; features and a label make two"),
        ("", "the data has no examples or no features"),
        ("a,b,c\n", "the data has no examples or no features"),
    ] {
        assert_eq!(csv(text), Err(expected.to_owned()), "{text:?}");
    }
}

#[test]
fn a_label_beyond_the_classes_is_refused() {
    let options = ReadOptions { num_classes: Some(2), ..ReadOptions::default() };
    let error = Dataset::from_csv("1,0\n1,2\n", &options).unwrap_err().to_string();
    assert_eq!(error, "example 1 has label 2, of 2 classes from 0");
    assert!(Dataset::new(vec![1.0], vec![0], 1, 0).is_err());
    assert!(Dataset::new(vec![1.0, 2.0], vec![0], 1, 1).is_err());
    assert!(Dataset::new(vec![f64::NAN], vec![0], 1, 1).is_err());
}

#[test]
fn archives_are_read() {
    let flat = archive((&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), (&[2], &[1.0, 0.0])).unwrap();
    assert_eq!((flat.row(1), flat.labels()), (&[4.0, 5.0, 6.0][..], &[1, 0][..]));
    let images = archive((&[2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), (&[2], &[1.0, 0.0])).unwrap();
    assert_eq!(images, flat);
}

#[test]
fn archives_of_another_form_are_refused() {
    for (result, word) in [
        (archive((&[2, 1], &[1.0, 2.0]), (&[3], &[0.0, 0.0, 0.0])), "2 examples where \"y\" has 3"),
        (archive((&[], &[1.0]), (&[1], &[0.0])), "single number"),
        (archive((&[1, 1], &[1.0]), (&[1, 1], &[0.0])), "not one number an example"),
        (archive((&[1, 1], &[1.0]), (&[1], &[-1.0])), "-1 at index 0"),
        (archive((&[1, 0], &[]), (&[1], &[0.0])), "no features"),
        (archive((&[1, 1], &[f64::INFINITY]), (&[1], &[0.0])), "feature 0 of example 0"),
        (read_archive(Vec::new()), "array \"x\""),
    ] {
        let error = result.unwrap_err();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn files_are_told_apart_by_their_ending() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.csv");
    std::fs::write(&path, "1,0\n").unwrap();
    assert_eq!(Dataset::open(&path, &ReadOptions::default()).unwrap().len(), 1);
    let missing = Dataset::open(&dir.path().join("none.csv"), &ReadOptions::default()).unwrap_err();
    assert!(matches!(missing, Error::File { .. }));
    let other = dir.path().join("data.pkl");
    std::fs::write(&other, "1,0\n").unwrap();
    assert!(matches!(Dataset::open(&other, &ReadOptions::default()), Err(Error::Unknown { .. })));
}

#[test]
fn the_digits_are_all_there() {
    let data = Dataset::open(&digits(), &ReadOptions::default()).unwrap();
    assert_eq!((data.len(), data.num_features(), data.num_classes()), (1797, 64, 10));
    assert!((0..data.len()).flat_map(|row| data.row(row)).all(|value| (0.0..=16.0).contains(value)));
    let of_class = |class| data.labels().iter().filter(|label| **label == class).count();
    let counts: Vec<usize> = (0..10).map(of_class).collect();
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
}

pub(crate) fn digits() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/digits/digits.csv")
}

#[test]
fn sites_get_every_row_once_and_enough_of_them() {
    let labels: Vec<usize> = (0..600).map(|row| row * 7 % 10).collect();
    for seed in 0..20 {
        let sites = dirichlet(&labels, 5, 0.5, seed).unwrap();
        assert!(sites.iter().all(|rows| rows.len() >= EXAMPLES_MIN && rows.is_sorted()), "seed {seed}");
        let mut rows = sites.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..600).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(dirichlet(&labels, 5, 0.5, seed).unwrap(), sites);
    }
    assert_ne!(dirichlet(&labels, 5, 0.5, 1).unwrap(), dirichlet(&labels, 5, 0.5, 2).unwrap());
}

#[test]
fn a_small_alpha_makes_sites_differ_more() {
    let labels: Vec<usize> = (0..5000).map(|row| row % 10).collect();
    // The mean share of a site's commonest class.
    let skew = |alpha| {
        let sites = dirichlet(&labels, 5, alpha, 3).unwrap();
        let commonest = |rows: &Vec<usize>| {
            let count = |class| rows.iter().filter(|row| labels[**row] == class).count();
            (0..10).map(count).max().unwrap() as f64 / rows.len() as f64
        };
        sites.iter().map(commonest).sum::<f64>() / 5.0
    };
    let (even, uneven) = (skew(1000.0), skew(0.2));
    assert!(even < 0.12 && uneven > 0.2, "{even} {uneven}");
}

#[test]
fn impossible_splits_are_refused_by_name() {
    let labels = vec![0; 99];
    let error = dirichlet(&labels, 10, 0.5, 0).unwrap_err().to_string();
    assert!(
        error.contains("99 examples") && error.contains("10 sites") && error.contains("at most 9"),
        "{error}"
    );
    // Possible in principle, and next to never drawn.
    let error = dirichlet(&labels, 9, 0.01, 0).unwrap_err();
    assert!(matches!(error, Error::NoSplit { sites: 9, .. }), "{error}");
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(dirichlet(&labels, 2, alpha, 0), Err(Error::Parameter { name: "alpha", .. })));
    }
    assert!(matches!(dirichlet(&labels, 0, 0.5, 0), Err(Error::Parameter { name: "sites", .. })));
}

#[test]
fn a_holdout_is_disjoint_seeded_and_never_all() {
    let (train, test) = split_holdout(100, 0.2, 5).unwrap();
    assert_eq!((train.len(), test.len()), (80, 20));
    let mut rows = [train.clone(), test.clone()].concat();
    rows.sort_unstable();
    assert_eq!(rows, (0..100).collect::<Vec<_>>());
    assert_eq!(split_holdout(100, 0.2, 5).unwrap(), (train, test.clone()));
    assert_ne!(split_holdout(100, 0.2, 6).unwrap().1, test);
    for share in [0.0, 0.001, 0.999, 1.0, -0.1, f64::NAN] {
        assert!(split_holdout(100, share, 5).is_err(), "{share}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}|([0-9.,a-z-]{0,12}\n){0,6}") {
        let _ = csv(&text);
    }
}
