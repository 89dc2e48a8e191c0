//! Whether code is compiled for tests only: the rules leave test code out.

use syn::punctuated::Punctuated;
use syn::{Attribute, ImplItem, Item, Meta, Token, TraitItem};

/// Whether one of these attributes is `#[test]`, or a `#[cfg]` that only holds in a test build.
pub fn only_in_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        let needs_test = || attribute.parse_args::<Meta>().is_ok_and(|meta| implies_test(&meta));
        path.is_ident("test") || path.is_ident("cfg") && needs_test()
    })
}

/// `test`, or `all(…)` of which one member implies `test`.
fn implies_test(predicate: &Meta) -> bool {
    match predicate {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .is_ok_and(|members| members.iter().any(implies_test)),
        _ => false,
    }
}

/// The attributes of an item, whatever its kind.
pub fn of_item(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Drops the test-only functions of an `impl` or a trait.
pub fn drop_test_methods(item: &mut Item) {
    match item {
        Item::Impl(item) => item.items.retain(
            |member| !matches!(member, ImplItem::Fn(method) if only_in_tests(&method.attrs)),
        ),
        Item::Trait(item) => item.items.retain(
            |member| !matches!(member, TraitItem::Fn(method) if only_in_tests(&method.attrs)),
        ),
        _ => {}
    }
}
