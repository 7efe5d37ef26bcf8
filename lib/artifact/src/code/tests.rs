//! Code made to reach out or to overflow, and code that only looks like it.

use super::*;

fn check(text: &str) -> Result<(), String> {
    scan(text, &Limits::default())
}

#[test]
fn operators_that_reach_outside_are_found_however_they_are_spelt() {
    for code in [
        "y = torch.from_file(\"/etc/hostname\", None, 4)\n",
        "y = torch .from_file(a)\n",
        "y = torch. from_file(a)\n",
        "y = (torch\n  .from_file)(a)\n",
        "y = torch\\\n.from_file(a)\n",
        "y = ops.aten.from_file(a)\n",
        "y = ops.aten .from_file(a)\n",
        "y = ops.evil.run(a)\n",
        "f = torch.save",
        "f = __torch__.torch.classes.dist_c10d.Store\n",
    ] {
        assert!(check(code).is_err(), "{code:?}");
    }
}

#[test]
fn a_namespace_is_never_a_value() {
    for code in [
        "t = torch\ny = t.from_file(a)\n",
        "y = (torch).from_file(a)\n",
        "y = getattr(torch, \"from_file\")(a)\n",
        "y = getattr(ops.aten, \"from_file\")(a)\n",
        "y = getattr(getattr(ops, \"aten\"), \"from_file\")(a)\n",
        "t = __torch__.torch\n",
        "t = __torch__\n",
        "t = __torch__.torch.classes\n",
        "t = torch",
    ] {
        let why = check(code).expect_err(code);
        assert!(why.contains("used as a value"), "{code:?}: {why}");
    }
}

#[test]
fn strings_comments_and_attributes_are_no_operators() {
    for code in [
        "s = \"torch.from_file(((\"\n# torch.save(x) ((((\nt = self.torch_load\n",
        "s = \"\"\"torch\n.from_file('\"\"\"\n",
        "y = torch.relu(ops.prim.data(x))\n",
        "y = (self).save(x, )\n",
        "y = self.torch\n",
        "_0 = __torch__.torch.nn.functional.relu\ny = _0(x, )\n",
        "w : __torch__.torch.classes.quantized.LinearPackedParamsBase\n",
    ] {
        assert_eq!(check(code), Ok(()), "{code:?}");
    }
}

#[test]
fn whatever_would_overflow_the_parser_is_refused() {
    let many = 100_000;
    for code in [
        format!("y = {}x{}", "(".repeat(many), ")".repeat(many)),
        format!("y = x{}", " + x".repeat(many)),
        format!("y = {}x", "~".repeat(many)),
        format!("y = {}x", "not ".repeat(many)),
        format!("y = x{}", "[0]".repeat(many)),
        format!("y = x{}", "()".repeat(many)),
        format!("y = x{}", ".a".repeat(many)),
        format!("y = {}x", "x if c else ".repeat(many)),
        format!("if a:\n  pass\n{}", "elif a:\n  pass\n".repeat(many)),
        (0..1_000).map(|depth| format!("{}if a:\n", " ".repeat(depth))).collect(),
        format!("# type: {}\n", "(".repeat(many)),
    ] {
        assert!(check(&code).is_err(), "{:.40}", code);
    }
    assert!(check("s = \"never ends\ny = 1").is_err());
    assert!(check("y = 1)").is_err());
    assert!(check("ÿ = 1").is_err());
}

#[test]
fn long_lists_and_long_files_are_not_deep() {
    assert_eq!(check(&format!("__parameters__ = [{}]\n", "\"w\", ".repeat(200_000))), Ok(()));
    assert_eq!(check(&"    y = torch.add(torch.mul(x, 2), 1)\n".repeat(50_000)), Ok(()));
}
