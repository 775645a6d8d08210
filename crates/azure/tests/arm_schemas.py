"""Holds a template against Azure's published schemas: each resource against that of its type and version.

Arguments: the folder of the schemas, the template. Prints how many resources were checked.
"""
import json, pathlib, re, sys
import warnings
warnings.simplefilter("ignore")
import jsonschema
root, path = pathlib.Path(sys.argv[1]), sys.argv[2]
template = json.load(open(path))
PREFIX = "https://schema.management.azure.com/schemas/"
def load(uri):
    return json.load(open(root / uri.split("#")[0].removeprefix(PREFIX)))
class Resolver(jsonschema.RefResolver):
    def resolve_remote(self, uri):
        return load(uri)
def check(schema, pointer, value):
    resolver = Resolver(schema.get("id", ""), schema)
    part = resolver.resolve_fragment(schema, pointer)
    jsonschema.Draft4Validator(part, resolver=resolver).validate(value)
count = 0
inner = template["resources"][1]["properties"]["template"]
for resource in [template["resources"][0]] + inner["resources"]:
    namespace, rest = resource["type"].split("/", 1)
    file = root / resource["apiVersion"] / (namespace + ".json")
    schema = json.load(open(file))
    kinds = [k for k in ("resourceDefinitions", "subscription_resourceDefinitions", "extension_resourceDefinitions", "unknown_resourceDefinitions") if rest.replace("/", "_") in schema.get(k, {})]
    assert kinds, resource["type"]
    check(schema, kinds[0] + "/" + rest.replace("/", "_"), resource)
    count += 1
for schema, value in ((template["$schema"], template), (inner["$schema"], inner)):
    schema = load(schema)
    required = schema["required"]
    assert all(key in value for key in required), required
    assert all(key in schema["properties"] for key in value), list(value)
    jsonschema.Draft4Validator(schema["properties"]["contentVersion"]).validate(value["contentVersion"])
print(count)
