"""The shards of the tests' workspaces: nothing but sizes. A collaborator's data path is the number of its shard, from 1."""

from openfl.federated.data.loader import DataLoader


class ShardLoader(DataLoader):
    def __init__(self, data_path=None, **kwargs):
        super().__init__(**kwargs)
        # An aggregator that prepares the first model has no shard.
        self.shard = int(data_path) if str(data_path or "").isdigit() else 0

    def get_feature_shape(self):
        return (1,)

    def get_train_data_size(self):
        return 100 * self.shard + 60

    def get_valid_data_size(self):
        return 30 * self.shard + 7
