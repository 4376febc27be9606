//! Wire types of the policy APIs, and their conversion to the model.
