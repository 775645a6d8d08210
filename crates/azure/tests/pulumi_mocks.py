"""Runs a Pulumi program under Pulumi's own mocks, and prints what it made and exported as one line of JSON.

Arguments: the program, the subscription's id, the key that accounts have.
"""

import json
import runpy
import sys

import pulumi

program, subscription, key = sys.argv[1:4]
made = []
exported = {}
outputs = {}

NAMES = ["tableName", "containerName", "databaseName", "accountName", "resourceGroupName"]


class Mocks(pulumi.runtime.Mocks):
    def new_resource(self, args):
        made.append({"type": args.typ, "inputs": dict(args.inputs)})
        made_of = dict(args.inputs)
        made_of["name"] = next((args.inputs[name] for name in NAMES if name in args.inputs), args.name)
        made_of["documentEndpoint"] = "https://endpoint.example/"
        made_of["primaryEndpoints"] = {"table": "https://table.example/"}
        return [args.name + "-id", made_of]

    def call(self, args):
        if args.token.endswith(":listDatabaseAccountKeys"):
            return {"primaryMasterKey": key}
        if args.token.endswith(":listStorageAccountKeys"):
            return {"keys": [{"keyName": "key1", "value": key, "permissions": "FULL"}]}
        if args.token.endswith(":getClientConfig"):
            return {"subscriptionId": subscription, "clientId": "c", "objectId": "o", "tenantId": "t"}
        raise Exception("an unexpected call: " + args.token)


pulumi.runtime.set_mocks(Mocks(), preview=False)
pulumi.export = lambda name, value: exported.__setitem__(name, pulumi.Output.from_input(value))


@pulumi.runtime.test
def run():
    runpy.run_path(program, run_name="__main__")
    secrets = {name: pulumi.Output.from_input(value).is_secret() for name, value in exported.items()}

    async def told():
        return {name: await secret for name, secret in secrets.items()}

    def told_all(values):
        values["secrets"] = values.pop("~secrets")
        outputs.update(values)

    return pulumi.Output.all(**exported, **{"~secrets": pulumi.Output.from_input(told())}).apply(told_all)


# It returns when everything has been made.
run()
print(json.dumps({"made": made, "outputs": outputs}))
