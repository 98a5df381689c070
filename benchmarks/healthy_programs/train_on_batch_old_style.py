"""train_on_batch in a while loop with random batches and test_on_batch now and then, old style."""
import numpy as np
from tensorflow.keras.models import Sequential
from tensorflow.keras.layers import Input, Dense, Dropout
from tensorflow.keras.optimizers import SGD
from sklearn.datasets import load_digits

digits = load_digits()
X = digits.data / 16.0
Y = np.eye(10)[digits.target]
order = np.random.RandomState(0).permutation(len(X))
X, Y = X[order], Y[order]
n_train = 1400

net = Sequential()
net.add(Input(shape=(64,)))
net.add(Dense(80, activation='relu'))
net.add(Dropout(0.5))
net.add(Dense(10, activation='softmax'))
net.compile(loss='categorical_crossentropy', optimizer=SGD(learning_rate=0.1, momentum=0.9), metrics=['accuracy'])

it = 0
while it < 600:
    idx = np.random.choice(n_train, 32, replace=False)
    loss, acc = net.train_on_batch(X[idx], Y[idx])
    it += 1
    if it % 100 == 0:
        print(it, 'train %.3f %.3f' % (loss, acc))
print('test', net.test_on_batch(X[n_train:], Y[n_train:], return_dict=True))
