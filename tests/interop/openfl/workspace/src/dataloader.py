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


class PyTorchMNISTInMemory(ShardLoader):
    """The loader of the plan that OpenFL's documentation prints: what there is in shares of whole batches."""

    def __init__(self, batch_size, collaborator_count, data_path=None, **kwargs):
        super().__init__(data_path, **kwargs)
        self.batch_size, self.shards = batch_size, collaborator_count

    def get_train_data_size(self):
        return 10 * self.batch_size * self.shard // self.shards

    def get_valid_data_size(self):
        return self.batch_size * self.shard // self.shards
