//! Stand-ins in the JSON Schema for values that are text in the file and a typed value in the program.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Makes one stand-in: a string with this `format`.
macro_rules! text {
    ($(#[doc = $doc:literal] $name:ident = $format:literal;)+) => {
        $(
            #[doc = $doc]
            #[derive(Debug)]
            pub struct $name;

            impl JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": "string", "format": $format })
                }
            }
        )+
    };
}

text! {
    #[doc = "A number and a unit of time."]
    Duration = "duration";
    #[doc = "A number and a unit of size."]
    Size = "size";
    #[doc = "An address of either family."]
    Ip = "ip";
    #[doc = "An address with the prefix of its link."]
    InterfaceAddress = "interface-address";
    #[doc = "A network, with no bit set behind the prefix."]
    Network = "network";
    #[doc = "A path, relative to the directory of the file."]
    Path = "path";
    #[doc = "The path of an HTTP request, without a query."]
    RequestPath = "request-path";
    #[doc = "Two ports with `-` between them."]
    Ports = "port-range";
}
